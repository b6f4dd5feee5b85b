"""Models behind UM-Bridge, the protocol that simulators of uncertainty quantification speak, as targets."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from parsample.engine.traceable import untraceable
from parsample.targets.external import External

PROTOCOL = 1.0
# Seconds that a server may take to say what it is.
PATIENCE = 10.0
# Seconds for which a server that did not answer is asked where no other is left only: twice this, then doubled.
REST, LONGEST_REST = 0.5, 60.0


class UMBridge(External):
    """A model behind an address: HTTP is all that stands between it and the chain.

    A model's inputs are the prior's variables: each is one of its vectors where as many of the same sizes are there, or
    they follow one another in its only one, in the order of the prior. What it returns goes to the likelihood.

    Args:
        url: of the server, such as "http://localhost:4242", or a list of several with the same model; that of a load
            balancer with `workers` for how many are behind it.
        model_name: one of the server's models.
        prior: of the inputs, as for `External`; None where the model's output is a log density at numbers that are
            unconstrained.
        likelihood: in JAX, from the model's output vector (from the list of them, where it has several) to the log
            likelihood of the data; None where the output is one number, the log likelihood itself.
        initial_position: as for `External`; without a prior, None for zeros, by the name `input` (`input_0`, ...).
        config: the model's options, such as {"level": 1}.
        gradient: None for the model's own, where it has one; False for none; "finite_differences", or a dict of steps,
            as for `External`.
        workers: runs at a time; None for as many as there are addresses.
        timeout: seconds that a run may take; None for no limit.
        retries: how often a run that fails is tried again, at the next address.
        on_error: as for `External`.
        emulator: as for `External`.

    Raises:
        ValueError: nobody answers there, or somebody who speaks another version, or has another model; the inputs are
            not those of the prior, or the likelihood is not fit for the outputs.
        ImportError: the package umbridge is not installed.

    Source: Seelinger et al. 2023, "UM-Bridge: Uncertainty quantification and modeling bridge".
    """

    name: ClassVar[str] = "umbridge"

    def __init__(
        self,
        url: str | Sequence[str],
        model_name: str,
        prior: Any = None,
        likelihood: Any = None,
        *,
        initial_position: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        gradient: Any = None,
        workers: Any = None,
        timeout: Any = None,
        retries: Any = 2,
        on_error: Any = "raise",
        emulator: Any = None,
    ):
        """Ask the servers what they have; no run is made."""
        served = [_connect(address, model_name, dict(config or {})) for address in _addresses(url)]
        simulate = _Simulate(served, model_name, dict(config or {}), likelihood)
        if gradient is None:
            gradient = simulate.has_gradient
        simulate.returns_gradient = gradient is True
        if prior is None and initial_position is None:
            sizes = simulate.input_sizes
            names = ["input"] if len(sizes) == 1 else [f"input_{number}" for number in range(len(sizes))]
            initial_position = {name: np.zeros(size) for name, size in zip(names, sizes, strict=True)}
        super().__init__(
            simulate,
            initial_position,
            prior,
            # Threads: they do nothing but wait for the servers.
            executor="threads",
            gradient=gradient or None,
            workers=len(served) if workers is None else workers,
            timeout=timeout,
            retries=retries,
            on_error=on_error,
            emulator=emulator,
        )
        simulate.lay_out(self.workers.template)


@dataclass
class _Server:
    """One address: how many runs it is at, how often in a row it did not answer, and until when others are asked."""

    model: Any
    busy: int = 0
    silences: int = 0
    rests_until: float = 0.0


class _Simulate:
    """From a position to the log likelihood of what some server returns for it, and its gradient."""

    def __init__(self, served: list[Any], name: str, config: dict[str, Any], likelihood: Any):
        self.input_sizes, self.output_sizes = _sizes(served, name, config)
        self.has_gradient = all(model.supports_gradient() for model in served)
        self.returns_gradient = False
        self._likelihood, self._config = likelihood, config
        self._in_vectors = True
        self._servers = [_Server(model) for model in served]
        self._lock = threading.Lock()
        # The runs of a store are those of this model, wherever it is served.
        self.__qualname__ = f"UM-Bridge model {name} {config or ''}".strip()
        _check_likelihood(likelihood, self.output_sizes)
        self._value_and_slopes = jax.jit(jax.value_and_grad(_first if likelihood is None else likelihood))

    def lay_out(self, template: Mapping[str, np.ndarray]) -> None:
        """Say which variable goes to which input.

        Raises:
            ValueError: they do not fit.
        """
        sizes = [leaf.size for leaf in template.values()]
        self._in_vectors = sizes == self.input_sizes
        if not self._in_vectors and self.input_sizes != [sum(sizes)]:
            variables = ", ".join(f"{name} ({leaf.size})" for name, leaf in template.items())
            raise ValueError(
                f"the model takes inputs of the sizes {self.input_sizes}, but the prior has the variables {variables}; "
                "give it as many numbers, either one variable for each input, or all of them for the only one."
            )

    def __call__(self, position: dict[str, np.ndarray]) -> Any:
        parts = [leaf.ravel().tolist() for leaf in position.values()]
        inputs = parts if self._in_vectors else [[number for part in parts for number in part]]
        with self._server() as model:
            found = model(inputs, self._config)
            # The likelihood in double precision, whatever the chain has: the data are what they are.
            with jax.enable_x64(True):
                outputs = [np.asarray(vector, np.float64) for vector in found]
                value, slopes = self._value_and_slopes(outputs[0] if len(outputs) == 1 else outputs)
            if not self.returns_gradient:
                return float(value)
            rows = [np.asarray(slope).tolist() for slope in jax.tree.leaves(slopes)]
            back = [self._pull_back(model, number, inputs, rows) for number in range(len(inputs))]
        flat = np.concatenate(back)
        ends = np.cumsum([leaf.size for leaf in position.values()])[:-1]
        cut = zip(position.items(), np.split(flat, ends), strict=True)
        return float(value), {name: part.reshape(leaf.shape) for (name, leaf), part in cut}

    @contextlib.contextmanager
    def _server(self) -> Iterator[Any]:
        """Lend the server that has least to do, of those that answered when they were asked last."""
        import requests

        with self._lock:
            now = time.monotonic()
            server = min(self._servers, key=lambda server: (server.rests_until > now, server.busy))
            server.busy += 1
        try:
            yield server.model
            server.silences = 0
        except requests.exceptions.JSONDecodeError as error:
            raise RuntimeError(f"the model at '{server.model.url}' failed; the server's log says why") from error
        except requests.exceptions.RequestException:
            server.silences += 1
            server.rests_until = time.monotonic() + min(REST * 2**server.silences, LONGEST_REST)
            raise
        finally:
            with self._lock:
                server.busy -= 1

    def _pull_back(self, model: Any, number: int, inputs: list, slopes: list) -> np.ndarray:
        """Return the gradient with respect to one input, from those with respect to the outputs."""
        parts = [model.gradient(row, number, inputs, slope, self._config) for row, slope in enumerate(slopes)]
        return np.sum(np.asarray(parts, np.float64), 0)


def _addresses(url: Any) -> list[str]:
    found = [url] if isinstance(url, str) else list(url)
    if not found:
        raise ValueError("url is empty, expected an address such as 'http://localhost:4242', or a list of some.")
    for address in found:
        if not (isinstance(address, str) and address.startswith(("http://", "https://"))):
            raise ValueError(f"url is {address!r}, expected an address such as 'http://localhost:4242'.")
    return [address.rstrip("/") for address in found]


def _connect(url: str, model_name: str, config: dict[str, Any]) -> Any:
    """Return the client of a model.

    Raises:
        ValueError: there is no such server, or no such model.
    """
    try:
        import requests
        import umbridge
    except ImportError as error:
        raise ImportError(
            "targets.UMBridge needs the package umbridge, which is not installed; install parsample[umbridge]."
        ) from error
    try:
        found = requests.get(f"{url}/Info", timeout=PATIENCE).json()
        version, models = float(found["protocolVersion"]), list(found["models"])
    except requests.exceptions.JSONDecodeError as error:
        raise ValueError(_no_server(url)) from error
    except requests.exceptions.RequestException as error:
        raise ValueError(
            f"url is '{url}', where nobody answers ({type(error).__name__}); is the server running, at that port?"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_no_server(url)) from error
    if version != PROTOCOL:
        raise ValueError(
            f"url is '{url}', where UM-Bridge {version:g} is spoken, expected {PROTOCOL:g}; update the server or the "
            "package umbridge, whichever is older."
        )
    if model_name not in models:
        raise ValueError(f"model_name is {model_name!r}, but '{url}' has {', '.join(map(repr, models)) or 'none'}.")
    model = umbridge.HTTPModel(url, model_name)
    if not model.supports_evaluate():
        raise ValueError(f"model_name is {model_name!r}, which '{url}' does not evaluate; name another.")
    return model


def _no_server(url: str) -> str:
    return f"url is '{url}', where somebody answers who does not speak UM-Bridge; is that the server's port?"


def _sizes(served: list[Any], name: str, config: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return the sizes of the inputs and of the outputs, which are those of every server."""
    found = [(model.get_input_sizes(config), model.get_output_sizes(config)) for model in served]
    for model, sizes in zip(served, found, strict=True):
        if sizes != found[0]:
            raise ValueError(
                f"url has two models {name!r}: '{served[0].url}' has inputs and outputs of the sizes {found[0]}, "
                f"'{model.url}' {sizes}; give addresses of the same."
            )
    return found[0]


def _first(output: Any) -> Any:
    return output[0]


def _check_likelihood(likelihood: Any, sizes: list[int]) -> None:
    """Refuse a likelihood that does not make one number of the outputs.

    Raises:
        ValueError: it does not.
    """
    if likelihood is None:
        if sizes != [1]:
            raise ValueError(
                f"likelihood is None, but the model returns outputs of the sizes {sizes}, not one number; give "
                "likelihood, a function of them in JAX."
            )
        return
    if not callable(likelihood):
        raise ValueError(f"likelihood is a {type(likelihood).__name__}, expected a function of the output, in JAX.")
    given = [jax.ShapeDtypeStruct((size,), jnp.result_type(float)) for size in sizes]
    what = f"a vector of {sizes[0]}" if len(sizes) == 1 else f"a list of vectors of {sizes}"
    try:
        found = jax.eval_shape(likelihood, given[0] if len(sizes) == 1 else given)
    except Exception as error:
        raise untraceable(error, "likelihood") or ValueError(
            f"likelihood cannot be traced for {what} ({type(error).__name__}: {error}); write it with jax.numpy."
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct) or found.shape != ():
        shapes = jax.tree.map(lambda leaf: leaf.shape, found)
        raise ValueError(f"likelihood returned shape {shapes} for {what}, expected one number; sum over the data.")
