"""Models behind UM-Bridge: a real server of that package, on the loopback address."""

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import parsample as ps
from parsample.targets.umbridge import UMBridge

umbridge = pytest.importorskip("umbridge", reason="the package umbridge is not installed: no model behind it was tried")
requests = pytest.importorskip("requests")

# Two outputs, so that the gradient is that of a sum; quick, and with the failures of a server.
SERVER = """
import sys
import umbridge

class Forward(umbridge.Model):
    def get_input_sizes(self, config):
        return [2, 1]
    def get_output_sizes(self, config):
        return [2, 1]
    def __call__(self, inputs, config):
        (a, b), (c,) = inputs
        scale = config.get("scale", 1.0)
        if a > 50:
            raise ValueError("too hot")
        return [[scale * a * c, b], [a + b]]
    def supports_evaluate(self):
        return True
    def gradient(self, out_wrt, in_wrt, inputs, sens, config):
        (a, b), (c,) = inputs
        scale = config.get("scale", 1.0)
        if out_wrt == 1:
            return [[sens[0], sens[0]], [0.0]][in_wrt]
        return [[scale * c * sens[0], sens[1]], [scale * a * sens[0]]][in_wrt]
    def supports_gradient(self):
        return self.name == "forward"

class Posterior(umbridge.Model):
    def get_input_sizes(self, config):
        return [3]
    def get_output_sizes(self, config):
        return [1]
    def __call__(self, inputs, config):
        return [[-0.5 * sum(number ** 2 for number in inputs[0])]]
    def supports_evaluate(self):
        return self.name == "posterior"

models = [Forward("forward"), Forward("without"), Posterior("posterior"), Posterior("mute")]
umbridge.serve_models(models, int(sys.argv[1]), max_workers=4)
"""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    ports = [free_port(), free_port()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen([sys.executable, "-c", SERVER, str(port)], **quiet) for port in ports]  # type: ignore[call-overload]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        for url, process in zip(urls, running, strict=True):
            wait_for(url, process)
        yield urls
    finally:
        for process in running:
            process.kill()
            process.wait()


def wait_for(url: str, process: subprocess.Popen) -> None:
    """Until a server answers."""
    while process.poll() is None:
        with contextlib.suppress(requests.exceptions.ConnectionError):
            if requests.get(f"{url}/Info", timeout=10).ok:
                return
        time.sleep(0.05)
    raise AssertionError("the server has ended")


DATA = jnp.asarray([1.0, -0.5]), jnp.asarray([0.3])


def likelihood(outputs: Any) -> jax.Array:
    return -0.5 * sum(((found - data) ** 2).sum() for found, data in zip(outputs, DATA, strict=True))


def prior() -> None:
    numpyro.sample("ab", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("c", dist.LogNormal(0.0, 0.5))


def in_jax(position: dict, scale: float = 1.0) -> jax.Array:
    """The posterior of `forward`, written by hand: c is exp(u)."""
    (a, b), c = position["ab"], jnp.exp(position["c"])
    u = position["c"]
    normal = dist.Normal(0, 1).log_prob(position["ab"]).sum() + dist.Normal(0, 0.5).log_prob(u)
    return normal + likelihood([jnp.stack([scale * a * c, b]), (a + b)[None]])


POSITION = {"ab": jnp.asarray([0.4, -0.7]), "c": jnp.asarray(0.3)}


@pytest.mark.parametrize("gradient", [None, "finite_differences"])
def test_value_and_gradient_are_those_of_the_same_model_in_jax(servers: list[str], gradient: Any, x64: None) -> None:
    target = UMBridge(servers[0], "forward", prior, likelihood, config={"scale": 2.0}, gradient=gradient)
    assert target.has_gradient
    position = jax.tree.map(lambda leaf: leaf.astype(float), POSITION)
    found = jax.value_and_grad(target.logdensity)(position)
    known = jax.jit(jax.value_and_grad(lambda position: in_jax(position, 2.0)))(position)
    np.testing.assert_allclose(found[0], known[0], rtol=1e-10)
    for name in known[1]:
        np.testing.assert_allclose(found[1][name], known[1][name], rtol=1e-10 if gradient is None else 1e-6)
    target.workers.close()


def test_a_model_without_a_gradient_has_none(servers: list[str]) -> None:
    target = UMBridge(servers[0], "without", prior, likelihood)
    assert not target.has_gradient
    np.testing.assert_allclose(target.logdensity(POSITION), in_jax(POSITION), rtol=1e-5)
    assert not UMBridge(servers[0], "forward", prior, likelihood, gradient=False).has_gradient


@pytest.mark.slow
def test_a_model_that_is_a_log_density_needs_nothing_else(servers: list[str]) -> None:
    target = UMBridge(servers, "posterior", workers=4)
    assert target.workers.size == 4
    trace = ps.sample(target, num_warmup=100, num_samples=200, num_chains=2, seed=0, progress=False)
    assert trace.posterior["input"].shape == (2, 200, 3)
    assert abs(float(trace.posterior["input"].mean())) < 0.4
    target.workers.close()


def test_variables_follow_one_another_where_there_is_one_input(servers: list[str]) -> None:
    target = UMBridge(servers[0], "posterior", prior, workers=1)
    expected = dist.Normal(0, 1).log_prob(POSITION["ab"]).sum() + dist.Normal(0, 0.5).log_prob(POSITION["c"])
    expected += -0.5 * ((POSITION["ab"] ** 2).sum() + jnp.exp(2 * POSITION["c"]))
    np.testing.assert_allclose(target.logdensity(POSITION), expected, rtol=1e-5)


def test_a_server_that_is_gone_is_passed_over(servers: list[str]) -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port := free_port())], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        target = UMBridge([url, servers[0]], "posterior")
    finally:
        process.kill()
        process.wait()
    rows = target.workers.submit([{"input": np.asarray([number, 0.0, 0.0])} for number in range(4)])
    rows.wait_all()
    np.testing.assert_array_equal(rows.logdensity, [0, -0.5, -2, -4.5])
    assert target.workers.counts.failures > 0
    target.workers.close()


def test_what_a_model_raises_is_a_failure(servers: list[str]) -> None:
    target = UMBridge(servers[0], "forward", prior, likelihood, retries=1)
    hot = {"ab": np.asarray([60.0, 0.0]), "c": np.asarray(1.0)}
    with pytest.raises(
        RuntimeError, match=r"a run failed \(tried 2 times\) at .*60.*the model at '\S+' failed; the server's"
    ):
        target.workers.submit([hot]).wait_all()


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server that is not what it should be."""

    reply: bytes = b"hello"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.reply)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"hello", "where somebody answers who does not speak UM-Bridge; is that the server's port"),
        (b"[]", "does not speak UM-Bridge"),
        (json.dumps({"protocolVersion": 2.0, "models": []}).encode(), "UM-Bridge 2 is spoken, expected 1; update"),
        (json.dumps({"protocolVersion": 1.0, "models": ["a"]}).encode(), "model_name is 'forward', but .* has 'a'"),
    ],
)
def test_another_server_is_refused(reply: bytes, text: str) -> None:
    handler = type("Handler", (Stranger,), {"reply": reply})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(ValueError, match=text):
                UMBridge(f"http://127.0.0.1:{server.server_port}", "forward", prior, likelihood)
        finally:
            server.shutdown()


def test_an_address_where_nobody_answers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"where nobody answers \(ConnectionError\); is the server running, at"):
        UMBridge(f"http://127.0.0.1:{free_port()}", "forward", prior, likelihood)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"url": []}, "url is empty"),
        ({"url": "localhost:4242"}, "url is 'localhost:4242', expected an address such as 'http://localhost:4242'"),
        ({"model_name": "mute"}, "model_name is 'mute', which .* does not evaluate"),
        ({"model_name": "forwards"}, "model_name is 'forwards', but .* has 'forward', 'without', 'posterior', 'mute'"),
        ({"likelihood": None}, r"likelihood is None, but the model returns outputs of the sizes \[2, 1\]"),
        ({"likelihood": 3}, "likelihood is a int, expected a function"),
        (
            {"likelihood": lambda outputs: np.asarray(outputs[0])[0]},
            "likelihood hands a value that JAX traces to NumPy",
        ),
        ({"likelihood": lambda outputs: outputs[0]}, r"likelihood returned shape \(2,\) .* expected one number"),
        (
            {"prior": lambda: numpyro.sample("k", dist.Normal(0, 1))},
            r"takes inputs of the sizes \[2, 1\], but the prior has the variables k \(1\)",
        ),
    ],
)
def test_arguments_are_checked(servers: list[str], arguments: dict[str, Any], text: str) -> None:
    given = {"url": servers[0], "model_name": "forward", "prior": prior, "likelihood": likelihood, **arguments}
    with pytest.raises(ValueError, match=text):
        UMBridge(**given)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umbridge", None)
    with pytest.raises(ImportError, match=r"needs the package umbridge, .* install parsample\[umbridge\]"):
        UMBridge("http://127.0.0.1:1", "forward")
