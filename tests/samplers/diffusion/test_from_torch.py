"""PyTorch networks as models of a process: one call a round, the samples of the loop, and what is refused."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.samplers import diffusion
from parsample.samplers.diffusion.from_torch import from_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed: networks of PyTorch are not tried")

# What PyTorch itself imports for its first derivative, it announces to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

SHAPE = (6,)


class Network(torch.nn.Module):  # type: ignore[name-defined]
    """A small denoiser, which remembers the shapes that it was called with."""

    def __init__(self, width: int = 16):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = torch.nn.Linear(SHAPE[0] + 1, width)
            self.last = torch.nn.Linear(width, SHAPE[0])
        self.calls: list[tuple[int, ...]] = []

    def forward(self, x: Any, t: Any, shift: Any = None) -> Any:
        self.calls.append(tuple(x.shape))
        assert t.shape == x.shape[:1]
        scaled = (t.to(x.dtype) / 1000)[:, None]
        found = x + 0.3 * self.last(torch.tanh(self.first(torch.cat([x, scaled], -1))))
        return found if shift is None else found + shift[:, None]


def in_jax(network: Network) -> Any:
    """The same network, written in JAX."""
    layers = (network.first, network.last)
    first, last = ([jnp.asarray(leaf.detach().numpy()) for leaf in (row.weight, row.bias)] for row in layers)

    def predict(x: jax.Array, t: jax.Array) -> jax.Array:
        inside = jnp.tanh(first[0] @ jnp.append(x, t / 1000) + first[1])
        return x + 0.3 * (last[0] @ inside + last[1])

    return predict


@pytest.fixture
def network() -> Network:
    return Network().eval()


def process(predict: Any, **options: Any) -> diffusion.DDIM:
    return diffusion.DDIM(predict, num_steps=12, **options)


@pytest.mark.parametrize("method", ["picard", "quasi_newton", "scaled_identity", "sequential"])
def test_samples_are_those_of_the_same_network_in_jax(network: Network, method: str) -> None:
    options: dict[str, Any] = {"shape": SHAPE, "num_samples": 3, "seed": 0, "tolerance": 1e-5}
    found = ps.diffuse(process(from_torch(network)), method=method, **options)
    loop = ps.diffuse(process(in_jax(network)), method="sequential", **options)
    np.testing.assert_allclose(found.samples, loop.samples, atol=1e-4)
    # One more, of two samples, is the trial; and derivatives are a call of their own.
    assert len(network.calls) == (1 + found.rounds.max()) * (2 if method == "quasi_newton" else 1)
    assert network.calls[0] == (2, *SHAPE)
    if method == "picard":
        assert set(network.calls[1:]) == {(3 * 12, *SHAPE)}


def test_derivatives_are_those_of_the_network(network: Network) -> None:
    x, direction, t = jnp.linspace(-1, 1, 6), jnp.arange(6.0), jnp.asarray(40)
    found = jax.jvp(lambda x: from_torch(network)(x, t), (x,), (direction,))
    known = jax.jvp(lambda x: in_jax(network)(x, t), (x,), (direction,))
    for mine, theirs in zip(found, known, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_attention_has_a_derivative() -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    predict = from_torch(torch.nn.Identity().eval(), lambda module, x, t: attend(x, x, x))

    def known(x: jax.Array) -> jax.Array:
        return jax.nn.softmax(x @ x.T / np.sqrt(x.shape[-1])) @ x

    x, direction = jax.random.normal(jax.random.key(0), (2, 5, 4))
    found = jax.jvp(lambda x: predict(x, jnp.asarray(3)), (x,), (direction,))
    for mine, theirs in zip(found, jax.jvp(known, (x,), (direction,)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_condition_comes_with_every_sample(network: Network) -> None:
    predict = from_torch(network)
    shifts = jnp.asarray([0.0, 2.0])
    found = jax.vmap(lambda shift: predict(jnp.zeros(6), jnp.asarray(3), shift))(shifts)
    np.testing.assert_allclose(found[1] - found[0], np.full(6, 2.0), rtol=1e-6)


def test_a_large_batch_goes_in_parts(network: Network) -> None:
    x, t = jnp.ones((7, 6)), jnp.arange(7)
    whole = jax.vmap(from_torch(network))(x, t)
    network.calls.clear()
    parts = jax.jit(jax.vmap(from_torch(network, batch_size=3)))(x, t)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    assert [shape[0] for shape in network.calls] == [2, 3, 3, 1]
    slopes = jax.jvp(jax.vmap(from_torch(network, batch_size=3)), (x, t), (x, np.zeros(7, jax.dtypes.float0)))
    assert slopes[1].shape == (7, 6)


@pytest.mark.parametrize("inner", [torch.float64, torch.float32, torch.bfloat16])
def test_a_network_in_another_precision(network: Network, inner: Any) -> None:
    found = from_torch(network.to(inner))(jnp.ones(6), jnp.asarray(7))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, in_jax(Network())(jnp.ones(6), 7), atol=0.05)


def test_double_precision_is_kept(network: Network, x64: None) -> None:
    found = from_torch(network.to(torch.float64))(jnp.ones(6), jnp.asarray(7))
    assert found.dtype == jnp.float64


def test_large_batches_do_not_lock_up() -> None:
    """A callback that waits for the device that waits for it: seen with large arrays on few cores."""
    network = torch.nn.Identity().eval()
    predict = jax.jit(jax.vmap(from_torch(network, lambda module, x, t: module(x))))
    x = jnp.ones((4, 1_000_000))
    for _ in range(5):
        x = predict(x, jnp.arange(4))
    np.testing.assert_array_equal(x[:, :3], np.ones((4, 3)))


def wide(module: Any, x: Any, t: Any) -> Any:
    return torch.cat([x, x], -1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda module, x, t: (x,), r"module returned a tuple, expected a tensor.*\(x, t\).sample"),
        (
            wide,
            r"module returned shape \[2, 12\] for samples of shape \[2, 6\], expected the same; a prediction of the",
        ),
        (lambda module, x, t: x > 0, "module returned torch.bool, expected floating point"),
        (
            lambda module, x, t: module(x),
            r"module raised TypeError on samples of shape \[2, 6\] .*Give call=",
        ),
    ],
)
def test_what_a_module_does_wrong_is_said_before_anything_is_spent(network: Network, call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ps.diffuse(process(from_torch(network, call)), shape=SHAPE, num_samples=2, method="picard")


def test_a_module_without_a_derivative_is_told_what_to_do(network: Network) -> None:
    predict = from_torch(network, lambda module, x, t: torch.from_numpy(np.tanh(x.numpy(force=True))))
    with pytest.raises(ValueError, match=r"PyTorch has no forward derivative of this module .*'scaled_identity'"):
        ps.diffuse(process(predict), shape=SHAPE, num_samples=2, method="quasi_newton")
    ps.diffuse(process(predict), shape=SHAPE, num_samples=2, method="scaled_identity")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"module": lambda x, t: x}, "module is a function, expected a torch.nn.Module"),
        ({"module": Network()}, r"module is in training mode, .* use module.eval\(\) first"),
        ({"call": 3}, "call is a int, expected a function of module, x and t"),
        ({"batch_size": 0}, "batch_size is 0, expected a number of samples"),
    ],
)
def test_arguments_are_checked(network: Network, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        from_torch(**{"module": network, **arguments})


def test_without_pytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, network: Network) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"from_torch needs PyTorch, .* install parsample\[torch\]"):
        from_torch(network)
