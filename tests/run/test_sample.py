"""The front door: what it returns, and that the draws are right."""

import functools
import json
import math
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import as_datatree, build_trace
from parsample.run import plan as sampling
from parsample.samplers import MALA
from parsample.targets import GermanCredit, LogisticRegression, MultivariateNormal
from tests.tolerances import CONVERGED, MIN_EFFECTIVE_SAMPLES, check_mean

ROOT = Path(__file__).resolve().parents[2]
Tree = Any  # An xarray.DataTree: its types leave open whether a name in it is a group or an array.
# No warm-up and no comparison: what is left is the chain itself.
BARE = {"num_warmup": 0, "step_size": 0.02, "num_chains": 2, "num_samples": 256, "compare": False, "progress": False}


def run(target: Any = "logistic_regression", sampler: Any = "mala", **keywords: Any) -> Tree:
    return as_datatree(ps.sample(target, sampler, **{**BARE, **keywords}))


@functools.cache
def chain(method: str = "sequential", window: int | None = None, **keywords: Any) -> Tree:
    return run(method=method, window=window, **keywords)


def check_same_chain(found: Tree, expected: Tree) -> None:
    accepted = expected["sample_stats"]["is_accepted"].values
    assert 0.1 < accepted.mean() < 0.95
    np.testing.assert_array_equal(found["sample_stats"]["is_accepted"], accepted)
    for group, name in (("posterior", "coefficients"), ("sample_stats", "lp"), ("sample_stats", "acceptance_rate")):
        CONVERGED.check(found[group][name], expected[group][name])


def normal(x: Any) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


@pytest.fixture(scope="module")
def schools() -> Tree:
    """Eight schools in parallel, over a whole segment, and the warm-up kept; every other default."""
    options: Any = {"num_samples": 1024, "keep_warmup": True, "progress": False}
    return as_datatree(ps.sample("eight_schools", method="quasi_newton", **options))


def test_groups_variables_and_dims(schools: Tree) -> None:
    assert set(schools.children) == {"posterior", "sample_stats", "warmup_posterior", "warmup_sample_stats"}
    statistics = schools["warmup_sample_stats"].data_vars
    assert {name: value.shape for name, value in statistics.items()} == {
        name: (4, 1000) for name in ("lp", "acceptance_rate", "step_size", "diverging")
    }
    shapes = {"mu": (4, 1024), "tau": (4, 1024), "theta": (4, 1024, 8), "theta_trans": (4, 1024, 8)}
    assert {name: value.shape for name, value in schools["posterior"].data_vars.items()} == shapes
    assert schools["posterior"]["theta"].dims == ("chain", "draw", "school")
    assert list(schools["posterior"]["school"].values[:2]) == ["Choate", "Deerfield"]
    warmup = schools["warmup_posterior"]
    assert warmup["theta"].shape == (4, 1000, 8)
    assert np.all(np.isfinite(warmup["theta"]))
    assert np.all(warmup["tau"] > 0)


def test_the_statistics_of_the_sampler(schools: Tree) -> None:
    stats = schools["sample_stats"]
    draws = ("lp", "acceptance_rate", "is_accepted", "step_size", "residual", "diverging", "energy", "n_steps")
    assert set(stats.data_vars) == {*draws, "iterations"}
    assert all(stats[name].dims == ("chain", "draw") for name in draws)
    assert stats["iterations"].dims == ("chain",)
    assert stats["is_accepted"].dtype == bool
    # Warm-up asks for more where it saw steps diverge, which the verdict says.
    wanted = 0.95 if "an acceptance of 0.95" in ps.read_verdict(schools).sampler else 0.8
    assert float(stats["acceptance_rate"].mean()) == pytest.approx(wanted, abs=0.1 * (1 - wanted) / 0.2)
    assert float(stats["acceptance_rate"].mean()) == pytest.approx(float(stats["is_accepted"].mean()), abs=0.02)
    assert np.unique(stats["step_size"]).size == 1
    assert np.all(stats["iterations"] > 0)
    target = ps.TARGETS["eight_schools"]()
    posterior = schools["posterior"]
    position = {"mu": posterior["mu"], "log_tau": np.log(posterior["tau"]), "theta_trans": posterior["theta_trans"]}
    lp = jax.vmap(target.logdensity)({name: jnp.asarray(value.values[0, :200]) for name, value in position.items()})
    np.testing.assert_allclose(stats["lp"].values[0, :200], lp, rtol=1e-4, atol=1e-3)


def test_the_attributes(schools: Tree) -> None:
    expected = {
        "creation_library": "parsample",
        "creation_library_version": ps.__version__,
        "inference_library": "parsample",
        "target": "eight_schools",
        "sampler": "hmc",
        "seed": 0,
        "num_warmup": 1000,
        "dtype": "float32",
        "jax_version": jax.__version__,
        "evaluation_method": "quasi_newton",
        "evaluation_window": 16,
        "evaluation_chains": 4,
        "evaluation_steps": 1024,
    }
    assert {name: schools.attrs[name] for name in expected} == expected
    assert schools.attrs["device"].startswith("cpu")
    noise = schools.attrs["evaluation_noise"]
    assert 1e-8 < noise < 1e-5
    assert (
        schools.attrs["evaluation_atol"]
        == schools.attrs["evaluation_rtol"]
        == pytest.approx(max(1e-6, 4 * noise), rel=0.05)
    )
    for name in ("warmup_seconds", "evaluation_run_seconds", "evaluation_compile_seconds"):
        assert schools.attrs[name] > 0


def test_the_verdict_speaks_of_this_run(schools: Tree) -> None:
    verdict = ps.read_verdict(schools)
    stats = schools["sample_stats"]
    assert verdict.iterations == int(stats["iterations"].max())
    assert verdict.largest_residual >= float(stats["residual"].max())
    assert verdict.converged == (verdict.finished_sequentially == 0)
    assert verdict.compared_steps == 1024
    # In single precision rounding decides now and then, and a trajectory too long for its step magnifies it, on every
    # processor otherwise: the verdict has to say what came of it.
    loop: Tree = as_datatree(ps.sample("eight_schools", num_samples=1024, method="sequential", progress=False))
    decisions = [trace["sample_stats"]["is_accepted"].values[:, :1024] for trace in (schools, loop)]
    assert verdict.decisions_that_differ == np.sum(decisions[0] != decisions[1])
    apart = largest_difference(schools, loop, 1024)
    # The verdict measures in coordinates in which the posterior is white, along directions of their own; and what both
    # call small is rounding.
    found, expected = max(verdict.largest_difference, 1e-3), max(apart.max(), 1e-3)
    assert expected / 4 < found < 4 * expected
    assert np.sum(apart > 1e-2) <= 1, "in more than one of the four chains"
    assert min(verdict.parallel_seconds, verdict.sequential_seconds, verdict.run_seconds) > 0
    assert 1 < verdict.evaluations_per_step < 16


def test_a_draw_is_the_one_before_where_it_was_rejected(schools: Tree) -> None:
    draws, accepted = schools["posterior"]["theta_trans"].values, schools["sample_stats"]["is_accepted"].values
    moved = np.abs(np.diff(draws, axis=1)).max(-1)
    assert moved[~accepted[:, 1:]].max() < 1e-4 < moved[accepted[:, 1:]].min()


def largest_difference(one: Tree, other: Tree, steps: int) -> np.ndarray:
    """Of each chain, over its first steps, in posterior standard deviations."""
    found = []
    for name in ("mu", "tau", "theta_trans"):
        first, second = (tree["posterior"][name].values[:, :steps].reshape(4, steps, -1) for tree in (one, other))
        if name == "tau":
            first, second = np.log(first), np.log(second)
        found.append((np.abs(first - second) / second.std((0, 1))).max((1, 2)))
    return np.max(found, 0)


def test_eight_schools_with_every_default_is_right(schools: Tree, shared_data: Path) -> None:
    summary = good_summary(schools)
    file = shared_data / "posteriors" / "eight_schools-eight_schools_noncentered.json"
    reference = json.loads(file.read_text(encoding="utf-8"))["reference"]
    rows = {f"theta[{school}]": f"theta[{j + 1}]" for j, school in enumerate(schools["posterior"]["school"].values)}
    for row, name in {**rows, "mu": "mu", "tau": "tau"}.items():
        error = math.hypot(summary.loc[row, "mcse_mean"], reference[name]["mcse_mean"])
        check_mean(summary.loc[row, "mean"], reference[name]["mean"], error)


def good_summary(trace: Any) -> Any:
    summary = ps.summarize(trace)
    assert summary["r_hat"].max() < 1.01
    assert summary["ess_bulk"].min() > MIN_EFFECTIVE_SAMPLES
    return summary


def test_a_plain_log_density_names_its_leaves_and_has_no_warm_up_group() -> None:
    start = {"a": jnp.zeros(2), "b": {"c": jnp.zeros(())}}
    trace = run(
        lambda p: normal(p["a"]) + normal(p["b"]["c"]), initial_position=start, num_samples=3, method="sequential"
    )
    assert set(trace.children) == {"posterior", "sample_stats"}
    shapes = {name: value.shape for name, value in trace["posterior"].data_vars.items()}
    assert shapes == {"a": (2, 3, 2), "b.c": (2, 3)}
    assert (trace.attrs["target"], trace.attrs["evaluation_method"]) == ("log_density", "sequential")
    assert trace.attrs["evaluation_compared_steps"] == 0


@pytest.mark.usefixtures("x64")
def test_double_precision_goes_through() -> None:
    tight: Any = {"method": "quasi_newton", "atol": 1e-10, "rtol": 0.0}
    trace = run(normal, initial_position=np.zeros(2), num_warmup=40, num_samples=20, **tight)
    assert trace.attrs["dtype"] == "float64"
    assert trace["posterior"]["x"].dtype == np.float64
    assert 0 < float(trace["sample_stats"]["residual"].max()) < 1e-9


@pytest.mark.parametrize(
    ("method", "window"),
    [("quasi_newton", 4), ("quasi_newton", 16), ("quasi_newton", 1024), ("newton", 16), ("auto", None)],
)
def test_the_same_seed_gives_the_same_chain_whatever_the_method_and_the_window(method: str, window: int | None) -> None:
    check_same_chain(chain(method, window), chain())


def test_the_loop_gives_the_same_bits_whatever_the_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for segment in (128, 256, 1024):
        monkeypatch.setattr(sampling, "PIECE", segment)
        found.append(run(method="sequential", num_samples=500)["posterior"]["coefficients"].values)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_array_equal(found[0][:, :256], chain()["posterior"]["coefficients"])


def test_the_parallel_chain_does_not_depend_on_the_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PIECE", 128)
    check_same_chain(run(method="quasi_newton"), chain())


def test_more_chains_leave_the_first_ones_as_they_were() -> None:
    more = run(method="sequential", num_chains=3)
    check_same_chain(more.isel(chain=slice(0, 2)), chain())
    draws = more["posterior"]["coefficients"].values
    assert np.abs(draws[2] - draws[0]).max() > 0.1


def test_another_seed_gives_other_draws_and_the_same_seed_the_same() -> None:
    first = chain()["posterior"]["coefficients"].values
    np.testing.assert_array_equal(run(method="sequential")["posterior"]["coefficients"], first)
    other = run(method="sequential", seed=1)["posterior"]["coefficients"].values
    assert np.all(np.abs(other - first).max((1, 2)) > 0.1)


def test_names_and_what_they_stand_for_are_the_same() -> None:
    found = run(LogisticRegression(), MALA, method=ps.methods.Sequential())
    np.testing.assert_array_equal(found["posterior"]["coefficients"], chain()["posterior"]["coefficients"])
    assert (found.attrs["sampler"], found.attrs["evaluation_method"]) == ("mala", "sequential")


def test_a_chain_that_does_not_converge_is_finished_by_the_loop() -> None:
    found = chain("quasi_newton", 16, max_iterations=3)
    check_same_chain(found, chain())
    verdict = ps.read_verdict(found)
    assert 0 < verdict.finished_sequentially < 2 * 256
    assert not verdict.converged
    assert "were finished by the sequential loop" in verdict.text()
    assert verdict.iterations == 3
    assert np.all(found["sample_stats"]["residual"].values[:, -100:] == 0)


def test_an_approximation_is_left_as_it_is_and_counted() -> None:
    options = {"step_size": 0.05, "num_samples": 200, "window": 32, "compare": True}
    trace = run(sampler="rwm", method=ps.methods.Picard(mismatch=0.2), **options)
    verdict = ps.read_verdict(trace)
    assert (verdict.converged, verdict.finished_sequentially) == (False, 0)
    assert verdict.method == "Picard(mismatch=0.2)"
    # A step that is off is off by an increment. The 56 steps after the last draw do not count.
    residual = trace["sample_stats"]["residual"].values
    assert residual.shape == (2, 200)
    assert verdict.approximate_steps == (residual > 1e-3).sum() > 0
    assert verdict.approximate_steps < 0.2 * residual.size
    assert f"{verdict.approximate_steps} of 400 steps are not within tolerance" in verdict.text()

    exact = ps.read_verdict(run(sampler="rwm", method="picard", **options))
    assert (exact.converged, exact.approximate_steps, exact.decisions_that_differ) == (True, 0, 0)
    assert exact.iterations > verdict.iterations


def test_only_draws_count_as_finished_by_the_loop() -> None:
    """A run of ten draws computes a whole block of inputs; the rest of the block is nobody's draw."""
    verdict = ps.read_verdict(run(method="quasi_newton", max_iterations=1, num_samples=20, window=16))
    assert 0 < verdict.finished_sequentially <= 2 * 20
    assert "-" not in dict(verdict.rows())["converged"]


@pytest.mark.parametrize("method", ["sequential", "quasi_newton"])
def test_a_chain_that_diverges_says_where(method: str) -> None:
    with pytest.raises(FloatingPointError, match=r"chain 0 left the finite numbers at step \d+\. .*smaller step size"):
        run("multivariate_normal", "ula", step_size=50.0, method=method, num_samples=100)


def check_moments(draws: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> None:
    """Means and mean squared deviations, shape (chain, draw, k), against the truth."""
    deviations = (draws.astype(np.float64) - mean) / sd
    summary = ps.summarize(build_trace({"posterior": {"first": deviations, "second": deviations**2}}))
    assert summary["ess_bulk"].min() > MIN_EFFECTIVE_SAMPLES
    check_mean(summary["mean"], np.repeat([0.0, 1.0], len(mean)), summary["mcse_mean"])


def test_a_correlated_normal() -> None:
    target = MultivariateNormal(mean=[3.0, -1.0], covariance=[[4.0, 1.8], [1.8, 1.0]])
    trace = run(target, num_warmup=1000, step_size=None, num_samples=4000, num_chains=4)
    check_moments(trace["posterior"]["x"].values, np.array([3.0, -1.0]), np.array([2.0, 1.0]))


def test_a_plain_log_density_that_is_skewed() -> None:
    """Logarithms of gamma variables. Shape 1: mean -0.5772, variance pi^2 / 6. Shape 2: 1 more and 1 less."""

    def logdensity(p: Any) -> jax.Array:
        return p["one"]["x"] - jnp.exp(p["one"]["x"]) + jnp.sum(2 * p["two"] - jnp.exp(p["two"]))

    start = {"one": {"x": jnp.zeros(())}, "two": jnp.zeros(2)}
    keywords = {"num_warmup": 1000, "step_size": None, "num_samples": 5000, "num_chains": 4, "method": "sequential"}
    posterior = run(logdensity, initial_position=start, **keywords)["posterior"]
    draws = np.concatenate([posterior["one.x"].values[..., None], posterior["two"].values], -1)
    variance = np.array([math.pi**2 / 6, math.pi**2 / 6 - 1, math.pi**2 / 6 - 1])
    check_moments(draws, np.array([0.0, 1.0, 1.0]) - np.euler_gamma, np.sqrt(variance))


def nuts(features: np.ndarray, labels: np.ndarray) -> Any:
    """The summary of a long run of NumPyro's NUTS on a logistic regression that is written down here once more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import numpyro
        from numpyro import distributions
        from numpyro.infer import MCMC, NUTS

    standardised = (features - features.mean(0)) / features.std(0)
    design = jnp.asarray(np.column_stack([np.ones(len(features)), standardised]), jnp.float32)

    def model() -> None:
        coefficients = numpyro.sample("coefficients", distributions.Normal(jnp.zeros(design.shape[1]), 1.0).to_event(1))
        numpyro.sample("label", distributions.Bernoulli(logits=design @ coefficients), obs=jnp.asarray(labels))

    chains = MCMC(
        NUTS(model), num_warmup=1000, num_samples=1500, num_chains=4, chain_method="vectorized", progress_bar=False
    )
    chains.run(jax.random.key(1))
    return good_summary(
        build_trace({"posterior": {"coefficients": chains.get_samples(group_by_chain=True)["coefficients"]}})
    )


def check_same_means(found: Any, reference: Any) -> None:
    error = np.hypot(found["mcse_mean"].to_numpy(), reference["mcse_mean"].to_numpy())
    check_mean(found["mean"].to_numpy(), reference["mean"].to_numpy(), error)


# Eight schools with every default is always run.
@pytest.mark.slow
def test_breast_cancer_with_every_default_is_right() -> None:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    trace = ps.sample("breast_cancer", progress=False)
    found = good_summary(trace)
    assert list(found.index[:2]) == ["coefficients[intercept]", "coefficients[mean radius]"]
    assert ps.read_verdict(trace).converged
    check_same_means(found, nuts(data.data, data.target))


@pytest.mark.slow
def test_german_credit_is_right(shared_data: Path) -> None:
    file = shared_data / "german.data-numeric"
    table = np.loadtxt(file)
    found = good_summary(ps.sample(GermanCredit(data=file), method="sequential", progress=False))
    check_same_means(found, nuts(table[:, :-1], (table[:, -1] == 2).astype(int)))
