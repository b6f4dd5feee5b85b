"""The code in the documents runs, and the skeletons of CONTRIBUTING do what they say."""

import functools
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from tests import fake_bridgestan
from tests.tolerances import CONVERGED

ROOT = Path(__file__).resolve().parents[1]


def code_blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def skeletons() -> dict[str, type]:
    """The classes of CONTRIBUTING, each from its own module, as a reader would have it."""
    found: dict[str, type] = {}
    for number, block in enumerate(code_blocks("CONTRIBUTING.md")):
        module = types.ModuleType(f"skeleton_{number}")
        sys.modules[module.__name__] = module
        exec(compile(block, module.__name__, "exec"), module.__dict__)
        found |= {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return found


def test_the_skeletons_of_a_target_a_sampler_and_a_method_work_together(skeletons: dict[str, type]) -> None:
    target = skeletons["HalfNormal"]()
    sampler = skeletons["RandomDirection"](target.logdensity, step_size=0.5)
    start = target.initial_position(jax.random.key(0))
    inputs = sampler.draw_inputs(jax.random.key(1), 200, start)
    loop = ps.evaluate_sequential(sampler.transition, start, inputs)
    found = ps.evaluate(sampler.transition, start, inputs, method=skeletons["Half"](), window=32, atol=1e-6, rtol=1e-6)
    assert bool(found.converged)
    CONVERGED.check(found.states["log_x"], loop.states["log_x"])
    assert float(jnp.std(loop.states["log_x"])) > 0.1


def test_a_skeleton_target_goes_through_the_front_door(skeletons: dict[str, type]) -> None:
    # MALA's steps are small here, for long ones stick in the steep tail of log |Z| now and then.
    settings: dict[str, Any] = {"num_warmup": 400, "num_samples": 4000, "step_size": 0.3, "progress": False}
    trace = ps.sample(skeletons["HalfNormal"](), method="sequential", **settings)
    # E|Z| = sqrt(2 / pi) for a standard normal Z.
    summary = ps.summarize(trace).loc["x"]
    assert summary["ess_bulk"] > 400
    assert abs(summary["mean"] - (2 / jnp.pi) ** 0.5) < 4 * summary["mcse_mean"]


@pytest.mark.slow
def test_the_code_of_the_readme_runs() -> None:
    blocks = code_blocks("README.md")
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


@pytest.mark.slow
def test_the_code_on_diffusion_runs() -> None:
    namespace: dict[str, Any] = {}
    for block in code_blocks("docs/diffusion.md"):
        exec(compile(block, "docs/diffusion.md", "exec"), namespace)
    assert int(namespace["out"].rounds.max()) < 15
    assert int(namespace["loop"].rounds.max()) == 50


@pytest.mark.slow
def test_the_code_on_models_outside_of_jax_runs() -> None:
    namespace: dict[str, Any] = {}
    for block in code_blocks("docs/outside-jax.md"):
        exec(compile(block, "docs/outside-jax.md", "exec"), namespace)
    assert abs(float(namespace["trace"].posterior["k"].mean()) - 10) < 0.5


@pytest.mark.slow
def test_the_code_on_effects_makes_the_draws_good() -> None:
    namespace: dict[str, Any] = {}
    for block in code_blocks("docs/how-to-choose.md"):
        exec(compile(block, "docs/how-to-choose.md", "exec"), namespace)
    trace = namespace["trace"]
    judgement = ps.judge(trace)
    assert judgement.worst.r_hat < 1.01
    assert min(judgement.worst.ess_bulk, judgement.worst.ess_tail) > 400
    assert "theta not centred" in ps.read_verdict(trace).sampler
    assert set(trace.posterior.data_vars) == {"mu", "tau", "theta"}


@pytest.mark.slow
def test_the_code_on_digits_runs() -> None:
    namespace: dict[str, Any] = {}
    for block in code_blocks("docs/digits.md"):
        exec(compile(block, "docs/digits.md", "exec"), namespace)
    assert namespace["out"].solution.converged.all()
    # The model for standard normal data is exact, and its first sample has no more to change.
    assert jnp.isfinite(namespace["normal"].samples).all()
    assert namespace["untrained"].solution.converged.all()


@pytest.mark.filterwarnings("default")  # what those libraries warn of is none of our failures
@pytest.mark.parametrize("library", ["pymc", "bambi"])
def test_the_recipe_for_pymc_and_bambi_runs(library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed: its recipe in docs/pymc.md was not run")
    blocks = code_blocks("docs/pymc.md")
    with jax.enable_x64(True):  # which PyMC turns on for good
        namespace: dict[str, Any] = {}
        for block in blocks if library == "bambi" else blocks[:1]:
            exec(compile(block, "docs/pymc.md", "exec"), namespace)
    # The scale of eight schools, 3.6, is a known one: posteriordb's eight_schools_noncentered.
    summary = ps.summarize(namespace["trace"])
    assert abs(float(summary.loc["tau", "mean"]) - 3.6) < 0.4
    assert {"mu", "tau", "raw[0]", "theta[7]"} <= set(summary.index)
    if library == "bambi":
        found = ps.summarize(namespace["fit"])
        assert abs(found.loc["x", "mean"] - 2.0) < 4 * found.loc["x", "sd"]
        assert ps.judge(namespace["fit"]).is_good


@pytest.mark.slow
def test_the_recipe_for_umbridge_runs() -> None:
    pytest.importorskip("umbridge", reason="the package umbridge is not installed: docs/umbridge.md was not run")
    from tests.targets.test_umbridge import free_port, wait_for

    port = str(free_port())
    server, client = (block.replace("4242", port) for block in code_blocks("docs/umbridge.md"))
    process = subprocess.Popen([sys.executable, "-c", server], stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        namespace: dict[str, Any] = {}
        exec(compile(client, "docs/umbridge.md", "exec"), namespace)
    finally:
        process.kill()
        process.wait()
    # What is measured is their ratio, half, whatever the prior says of each.
    draws = namespace["trace"].posterior
    assert abs(float((draws["load"] / draws["stiffness"]).mean()) - 0.496) < 0.01
    assert namespace["target"].has_gradient


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what Ray warns of is none of our failures
def test_the_recipe_for_ray_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer draws than the document has."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: docs/ray.md was not run")
    (block,) = code_blocks("docs/ray.md")
    monkeypatch.setattr(ps, "sample", functools.partial(ps.sample, num_warmup=60, num_samples=60, num_chains=2))
    namespace: dict[str, Any] = {}
    try:
        exec(compile(block, "docs/ray.md", "exec"), namespace)
    finally:
        ray.shutdown()
    assert ps.read_verdict(namespace["trace"]).model_lanes == namespace["workers"]
    # The last bit of a random walk's chain is that of threads' here.
    target = ps.targets.External(namespace["simulate"], {"x": np.zeros(2)}, executor="threads", workers=2)
    expected = ps.sample(target, progress=False).posterior["x"]
    np.testing.assert_array_equal(namespace["trace"].posterior["x"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["installed", "stand-in"])
def test_the_recipe_for_stan_runs(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With fewer draws than the document has; derivatives against those of this package's own eight schools."""
    if kind == "stand-in":
        monkeypatch.setitem(sys.modules, "bridgestan", fake_bridgestan)
    else:
        bridgestan = pytest.importorskip(
            "bridgestan", reason="BridgeStan is not installed: docs/stan.md was run with a stand-in"
        )
        if not bridgestan.download.CURRENT_BRIDGESTAN.exists():
            pytest.skip("Stan's sources are not there: docs/stan.md was run with a stand-in for BridgeStan")
    sample = ps.sample
    cheap = {"num_warmup": 20, "num_samples": 20, "num_chains": 2, "compare": False, "progress": False}
    monkeypatch.setattr(ps, "sample", lambda *args, **given: sample(*args, **{**given, **cheap}))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in code_blocks("docs/stan.md"):
        exec(compile(block, "docs/stan.md", "exec"), namespace)
    density, ours = namespace["logdensity"], ps.targets.EightSchools()
    assert len(namespace["trace"].posterior.data_vars) == 18

    def known(x: Any) -> Any:
        return ours.logdensity({"mu": x[0], "log_tau": x[1], "theta_trans": x[2:]})

    rows, directions = np.random.default_rng(0).normal(size=(2, 3, 10)).astype(np.float32)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(density)))(rows)
    expected = jax.vmap(known)(rows)
    np.testing.assert_allclose(values - values[0], expected - expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients, jax.vmap(jax.grad(known))(rows), rtol=1e-4, atol=1e-4)
    found, expected = (
        jax.vmap(lambda x, v, of=of: jax.jvp(jax.grad(of), (x,), (v,))[1])(rows, directions) for of in (density, known)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert density(jnp.full(10, 100.0)) == -jnp.inf


# What is not installed here, and so not run.
NOT_RUN = ("nutpie",)


def tables(document: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield of every row of a document's tables the heads of two columns, and the code of each cell in order."""
    head: list[str] = []
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            head = []
        elif not head:
            head = cells
        elif not set(cells[0]) <= set("- "):
            for name, cell in zip(head, cells, strict=True):
                yield head[0], name, re.findall(r"`([^`]+)`", cell)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:NumPyro's NUTS", "ignore::FutureWarning")
def test_every_cell_for_those_who_come_from_elsewhere_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer draws than the document has, and by the loop; each column of a table in a namespace of its own."""
    cheap: dict[str, Any] = {"method": "sequential", "compare": False, "num_warmup": 20, "num_samples": 20}
    sample = ps.sample
    monkeypatch.setattr(ps, "sample", lambda *args, **given: sample(*args, **{**given, **cheap, "progress": False}))
    (preamble,) = code_blocks("docs/coming-from.md")
    columns: dict[tuple[str, str], dict[str, Any]] = {}
    for table, column, lines in tables("docs/coming-from.md"):
        if column in NOT_RUN:
            continue
        if (table, column) not in columns:
            namespace = columns[table, column] = {}
            exec(compile(preamble, "docs/coming-from.md", "exec"), namespace)
        for line in lines:
            exec(compile(line.replace("1000", "20"), f"docs/coming-from.md: {line}", "exec"), columns[table, column])
    assert set(columns) == {(table, "parsample") for table in ("NumPyro", "nutpie", "BlackJAX")} | {
        ("NumPyro", "NumPyro"),
        ("BlackJAX", "BlackJAX"),
    }
    theirs, ours = columns["NumPyro", "NumPyro"]["mcmc"], columns["NumPyro", "parsample"]["mcmc"]
    assert theirs.get_samples()["slope"].shape == ours.get_samples()["slope"].shape
