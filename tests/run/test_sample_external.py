"""A model outside of JAX at the front door."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run.progress import Event
from parsample.targets.external import External

SCALES = np.array([1.0, 2.0, 0.5])
SETTINGS: dict[str, Any] = {"num_chains": 2, "progress": False}
# A step of NUTS makes nobody knows how many runs.
WITHOUT_LOOPS = [name for name in ps.SAMPLERS if name != "nuts"]


def simulate(position: dict[str, np.ndarray]) -> float:
    return float(-0.5 * np.sum((position["x"] / SCALES) ** 2))


def with_gradient(position: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
    return simulate(position), {"x": -position["x"] / SCALES**2}


def external(run: Any = simulate, **options: Any) -> External:
    return External(run, {"x": np.zeros(3)}, executor="threads", workers=8, **options)


def draws(trace: Any, name: str = "x") -> np.ndarray:
    return np.asarray(as_datatree(trace)["posterior"][name])


@pytest.mark.parametrize(
    "sampler",
    [
        name if name in ("rwm", "mala", "tempering") else pytest.param(name, marks=pytest.mark.slow)
        for name in WITHOUT_LOOPS
    ],
)
def test_the_chain_is_that_of_the_same_model_in_jax(sampler: str) -> None:
    options: dict[str, Any] = {**SETTINGS, "num_warmup": 0, "num_samples": 40, "sampler": sampler}
    options |= {} if sampler == "gibbs" else {"step_size": 0.3}
    target = external() if sampler == "rwm" else external(with_gradient, gradient=True)
    inside = lambda position: -0.5 * jnp.sum((position["x"] / SCALES) ** 2)  # noqa: E731
    expected = ps.sample(inside, initial_position={"x": jnp.zeros(3)}, method="sequential", **options)
    trace = ps.sample(target, **options)
    np.testing.assert_allclose(draws(trace), draws(expected), atol=1e-4)
    one, other = (as_datatree(row)["sample_stats"] for row in (trace, expected))
    assert ("is_accepted" in one) == ("is_accepted" in other)
    if "is_accepted" in other:
        np.testing.assert_array_equal(one["is_accepted"], other["is_accepted"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        name if name in ("rwm", "hmc", "tempering") else pytest.param(name, marks=pytest.mark.grid)
        for name in WITHOUT_LOOPS
    ],
)
def test_every_sampler_warms_up(sampler: str) -> None:
    target = external(with_gradient, gradient=True)
    trace = ps.sample(target, sampler=sampler, num_warmup=200, num_samples=40, **SETTINGS)
    assert np.all(np.isfinite(draws(trace)))
    assert np.all(draws(trace).std((0, 1)) > 0)
    assert ps.read_verdict(trace).model_runs == target.workers.counts.runs


@pytest.mark.slow
def test_the_loop_and_any_window_give_the_same_trace() -> None:
    options: dict[str, Any] = {**SETTINGS, "num_warmup": 80, "num_samples": 150}
    loop = ps.sample(external(), method="sequential", warmup_method="sequential", **options)
    for method, window in (("surrogate", None), ("picard", None), ("surrogate", 3)):
        np.testing.assert_array_equal(
            draws(ps.sample(external(), method=method, window=window, **options)), draws(loop)
        )


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("run", "gradient", "tolerance"),
    [
        (simulate, None, 0.0),
        pytest.param(with_gradient, True, 1e-9, marks=pytest.mark.grid),
        (simulate, "finite_differences", 1e-6),
    ],
)
def test_in_double_precision_it_is_the_loops_chain(run: Any, gradient: Any, tolerance: float) -> None:
    options: dict[str, Any] = {**SETTINGS, "num_warmup": 80, "num_samples": 100}
    found = draws(ps.sample(external(run, gradient=gradient), **options))
    loop = ps.sample(external(run, gradient=gradient), method="sequential", warmup_method="sequential", **options)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, draws(loop), rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "sampler"), [(simulate, "rwm"), (with_gradient, "mala")])
def test_warm_up_finds_the_scale_and_the_draws_are_right(run: Any, sampler: str) -> None:
    target = external(run, gradient=run is with_gradient or None)
    trace = ps.sample(target, num_warmup=800, num_samples=1500, num_chains=4, progress=False)
    verdict = ps.read_verdict(trace)
    assert verdict.sampler.startswith(sampler)
    found = draws(trace)
    np.testing.assert_allclose(found.std((0, 1)), SCALES, rtol=0.2)
    assert np.all(np.abs(found.mean((0, 1))) < 0.3 * SCALES)
    # Four chains on eight workers are two steps ahead at best; how often they are depends on which run returns first.
    assert verdict.iterations < 0.6 * 1500
    assert verdict.model_runs == target.workers.counts.runs
    rows = dict(verdict.evaluation_rows())
    assert rows["rounds"].endswith("for 1,500 steps that the loop makes one by one")
    assert "warm-up included" in rows["model runs"]
    assert rows["workers"].startswith("8 workers, busy ")
    assert any("ms, less than it takes to send it somewhere" in row for row in verdict.advice())


@pytest.mark.slow
def test_a_prior_is_in_jax_and_its_variables_in_their_own_coordinates() -> None:
    def prior() -> None:
        numpyro.sample("rate", dist.Gamma(3.0, 2.0))
        numpyro.deterministic("double", 2 * numpyro.sample("shift", dist.Normal(0.0, 1.0)))

    asked: list[dict[str, np.ndarray]] = []

    def likelihood(position: dict[str, np.ndarray]) -> float:
        asked.append(position)
        return float(-0.5 * (position["shift"] - 1) ** 2)

    target = External(likelihood, prior=prior, executor="threads", workers=8)
    trace = ps.sample(target, num_warmup=500, num_samples=2000, num_chains=4, progress=False)
    assert all(set(position) == {"rate", "shift"} and position["rate"] > 0 for position in asked)
    assert asked[0]["rate"].dtype == np.float64
    found = as_datatree(trace)["posterior"]
    assert set(found.data_vars) == {"rate", "shift", "double"}
    assert abs(float(found["rate"].mean()) - 1.5) < 0.15
    assert abs(float(found["shift"].mean()) - 0.5) < 0.1
    assert abs(float(found["shift"].std()) - np.sqrt(0.5)) < 0.1


@pytest.mark.parametrize("start", [{"x": np.full(3, 0.5)}, [{"x": np.zeros(3)}, {"x": np.ones(3)}]])
def test_chains_start_where_they_are_told_to(start: Any) -> None:
    asked: list[bytes] = []

    def noted(position: dict[str, np.ndarray]) -> float:
        asked.append(position["x"].tobytes())
        return simulate(position)

    ps.sample(external(noted), start=start, num_warmup=0, num_samples=2, step_size=0.1, **SETTINGS)
    expected = [row["x"] for row in (start if isinstance(start, list) else [start])]
    assert {row.tobytes() for row in expected} <= set(asked)
    assert len(set(asked)) == len(asked) - 1


def test_differences_take_the_place_of_a_gradient() -> None:
    options: dict[str, Any] = {**SETTINGS, "num_warmup": 0, "step_size": 0.3, "num_samples": 40}
    trace = ps.sample(external(gradient="finite_differences"), **options)
    expected = ps.sample(external(with_gradient, gradient=True), **options)
    assert ps.read_verdict(trace).sampler.startswith("mala")
    np.testing.assert_allclose(draws(trace), draws(expected), atol=1e-3)


@pytest.mark.slow
def test_an_emulator_foresees_and_changes_nothing() -> None:
    exact = lambda position: -0.5 * jnp.sum((position["x"] / SCALES) ** 2)  # noqa: E731
    options: dict[str, Any] = {**SETTINGS, "num_warmup": 80, "num_samples": 128}
    target = external(emulator=exact)
    trace = ps.sample(target, **options)
    np.testing.assert_array_equal(draws(trace), draws(ps.sample(external(), **options)))
    assert ps.read_verdict(trace).evaluations_per_step < 1.02


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "newton"}, r"method is 'newton', but the model runs outside of JAX.*expected 'auto' or 'surrogate'"),
    ({"compare": True}, r"compare is True, but the model runs outside of JAX.*leave it out"),
    ({"tune": "rounds", "sampler": "mala", "method": "surrogate"}, r"tune is 'rounds', but .*outside of JAX"),
    ({"window": "all"}, r"window is 'all', expected a whole number of runs ahead"),
    ({"start": "laplace"}, r"start is 'laplace', but the model runs outside of JAX.*leave start out"),
    ({"sampler": "mala"}, r"sampler is MALA, which does not .*gradient='finite_differences'.*such as 'rwm'"),
    ({"sampler": "nuts"}, r"sampler is NUTS, which does not .*(inside of a `while`|takes gradients)"),
]


@pytest.mark.parametrize(("options", "match"), REFUSED)
def test_what_a_model_outside_of_jax_cannot_do_is_refused_before_it_is_run(options: dict, match: str) -> None:
    target = external()
    with pytest.raises(ValueError, match=match):
        ps.sample(target, **SETTINGS, **options)
    assert target.workers.counts.runs == 0


@pytest.mark.parametrize("door", [ps.forecast, ps.plan])
def test_nothing_is_foreseen_of_it_by_other_doors(door: Any) -> None:
    with pytest.raises(ValueError, match="target runs outside of JAX, which parsample"):
        door(external())


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({}, "initial_position is None, expected arrays by name"),
    ({"initial_position": {}}, "initial_position is empty, expected arrays by name"),
    ({"initial_position": [0.0]}, "initial_position is a list, expected arrays by name"),
    ({"initial_position": {"x": 1j}}, "initial_position holds dtype complex64, expected real floating-point numbers"),
    ({"prior": 3}, "prior is a int, expected a NumPyro model"),
    ({"initial_position": {"x": 0.0}, "emulator": lambda position: jnp.zeros(2)}, "the log density returned float32"),
]


@pytest.mark.parametrize(("arguments", "match"), ARGUMENTS)
def test_arguments_that_do_not_fit_are_refused(arguments: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        External(simulate, executor="threads", **arguments)


KILLED = """
import os, sys, time
import numpy as np
import parsample as ps

def simulate(position):
    key = position["x"].tobytes().hex()
    with open(sys.argv[2], "a") as file:
        file.write(f"begin {key}\\n")
    time.sleep(0.004)
    with open(sys.argv[2], "a") as file:
        file.write(f"end {key}\\n")
    return float(-0.5 * np.sum(position["x"] ** 2))

target = ps.targets.External(simulate, {"x": np.zeros(2)}, executor="threads", workers=4)
store = sys.argv[1]
if os.path.exists(store) and "resume" in sys.argv:
    ps.resume(store, target, progress=False)
else:
    ps.sample(target, num_warmup=160, num_samples=300, num_chains=2, progress=False, store=store)
"""


def _killed(script: Path, store: Path, log: Path, seconds_after: int, *words: str) -> None:
    """Run until so many further runs have returned, then kill."""
    environment = {**os.environ, "PYTHONPATH": str(Path(ps.__file__).resolve().parents[1])}
    before = log.read_text().count("end") if log.exists() else 0
    process = subprocess.Popen([sys.executable, script, store, log, *words], env=environment)
    while process.poll() is None and (log.read_text().count("end") if log.exists() else 0) < before + seconds_after:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_run_killed_twice_ends_as_an_undisturbed_one_and_repeats_no_run(tmp_path: Path) -> None:
    script, log = tmp_path / "model.py", tmp_path / "log"
    script.write_text(KILLED)
    _killed(script, tmp_path / "run.zarr", log, 100)
    _killed(script, tmp_path / "run.zarr", log, 700, "resume")
    _killed(script, tmp_path / "run.zarr", log, 10**9, "resume")
    _killed(script, tmp_path / "whole.zarr", tmp_path / "other", 10**9)
    whole, found = (draws(ps.load_trace(tmp_path / name)) for name in ("whole.zarr", "run.zarr"))
    np.testing.assert_array_equal(found, whole)
    # The first run that returns is made a second time, once in the life of a store, and those are made again that were
    # under way at a kill, or had come to their end without having been taken: at most as many as there are workers.
    begun = Counter(row for row in log.read_text().splitlines() if row.startswith("begin"))
    assert sum(begun.values()) - len(begun) <= 1 + 2 * 4


@pytest.mark.slow
def test_progress_tells_of_runs_and_of_steps_as_they_are_made() -> None:
    def slow(position: dict[str, np.ndarray]) -> float:
        time.sleep(0.01)
        return simulate(position)

    heard: list[Event] = []
    target = external(slow)
    trace = ps.sample(target, num_warmup=80, num_samples=100, num_chains=2, progress=heard.append)
    assert heard[0].done == 0, "nothing was told of the way down"
    assert [event.model_runs for event in heard] == sorted(event.model_runs or 0 for event in heard)
    assert 0 < (heard[-1].model_runs or 0) <= ps.read_verdict(trace).model_runs
    assert all((event.model_seconds or 0.01) >= 0.01 for event in heard)
    for stage, total in (("warm-up", 80), ("sampling", 100)):
        done = [event.done for event in heard if event.stage == stage]
        assert done == sorted(done)
        assert done[-1] == total
        # More often than a segment of many steps ends.
        assert len(set(done)) > 5


@pytest.mark.slow
def test_a_run_that_is_extended_is_the_one_that_was_long_at_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {**SETTINGS, "num_warmup": 80}
    whole = ps.sample(external(), num_samples=150, **options)
    target, store = external(), tmp_path / "run.zarr"
    ps.sample(target, num_samples=100, store=store, **options)
    before = target.workers.counts.runs
    again = external()
    heard: list[Event] = []
    extended = ps.resume(store, again, num_samples=150, progress=heard.append)
    np.testing.assert_array_equal(draws(extended), draws(whole))
    assert [event.done for event in heard] == sorted(event.done for event in heard)
    assert (heard[-1].done, heard[-1].total) == (50, 50)
    # The segment of the last draws is begun again, by what is remembered.
    assert again.workers.counts.runs < before
