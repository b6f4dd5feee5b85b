"""The object with NumPyro's interface: against `parsample.sample`, NumPyro's own MCMC, and ArviZ."""

from typing import Any

import arviz
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.infer
import pytest

import parsample as ps
from parsample.results.trace import as_datatree

HEIGHTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12], np.float32)
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18], np.float32)


def schools(errors: Any, heights: Any = None) -> None:
    mean = numpyro.sample("mean", dist.Normal(0, 5))
    scale = numpyro.sample("scale", dist.HalfCauchy(5))
    with numpyro.plate("school", len(errors)):
        raw = numpyro.sample("raw", dist.Normal())
        effect = numpyro.deterministic("effect", mean + scale * raw)
        numpyro.sample("heights", dist.Normal(effect, errors), obs=heights)


@pytest.fixture(scope="module")
def run() -> Any:
    kernel = ps.Kernel(schools, "hmc", num_integration_steps=6)
    mcmc = ps.MCMC(kernel, num_warmup=200, num_samples=300, num_chains=2, progress_bar=False, compare=False)
    mcmc.run(jax.random.key(5), ERRORS, heights=HEIGHTS, extra_fields=("potential_energy", "accept_prob", "num_steps"))
    return mcmc


def test_draws_and_fields_are_those_of_the_trace(run: Any) -> None:
    tree = as_datatree(run.trace)
    grouped, flat = run.get_samples(group_by_chain=True), run.get_samples()
    assert set(grouped) == {"mean", "scale", "raw", "effect"}
    assert flat["effect"].shape == (600, 8)
    np.testing.assert_array_equal(grouped["effect"], tree["posterior"]["effect"])
    np.testing.assert_array_equal(flat["mean"][300:], grouped["mean"][1])
    fields = run.get_extra_fields(group_by_chain=True)
    assert set(fields) == {"diverging", "potential_energy", "accept_prob", "num_steps"}
    np.testing.assert_array_equal(fields["potential_energy"], -tree["sample_stats"]["lp"])
    assert np.all(np.asarray(fields["num_steps"]) == 6)
    assert run.verdict.steps == 300


def test_a_chain_starts_at_init_params(run: Any) -> None:
    """So short a step that the first draw is where the chain began; one chain needs no axis for chains."""
    kernel = ps.Kernel(schools, "mala")
    settings: dict[str, Any] = {"step_size": 1e-10, "method": "sequential", "compare": False}
    one = ps.MCMC(kernel, num_warmup=0, num_samples=1, progress_bar=False, **settings)
    start = {name: values[0] for name, values in run.last_state.z.items()}
    one.run(jax.random.key(0), ERRORS, heights=HEIGHTS, init_params=start)
    np.testing.assert_allclose(one.last_state.z["raw"][0], start["raw"], atol=1e-3)
    with pytest.raises(ValueError, match=r"start has the shapes .* expected .* with a leading axis of chains"):
        one.run(jax.random.key(0), ERRORS, heights=HEIGHTS, init_params={"mean": np.zeros(2)})


def test_the_last_state_is_numpyros_potential_at_the_last_draw(run: Any) -> None:
    known = numpyro.infer.initialize_model(jax.random.key(0), schools, model_args=(ERRORS, HEIGHTS))
    found = run.last_state
    assert set(found.z) == {"mean", "scale", "raw"}
    np.testing.assert_allclose(
        found.z["scale"], np.log(run.get_samples(group_by_chain=True)["scale"][:, -1]), rtol=1e-5
    )
    np.testing.assert_allclose(jax.vmap(known.potential_fn)(found.z), found.potential_energy, rtol=1e-4)


def test_the_summary_is_numpyros(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run.print_summary()
    printed = capsys.readouterr().out
    assert "r_hat" in printed
    assert "raw[7]" in printed
    assert "Number of divergences: " in printed


@pytest.mark.filterwarnings("ignore")  # ArviZ speaks of Pareto k and of its own future
def test_arviz_takes_it(run: Any) -> None:
    tree = as_datatree(arviz.from_numpyro(run))
    assert tree["posterior"]["effect"].dims == ("chain", "draw", "school")
    np.testing.assert_array_equal(tree["posterior"]["effect"], run.get_samples(group_by_chain=True)["effect"])
    np.testing.assert_array_equal(tree["observed_data"]["heights"], HEIGHTS)


def test_the_same_key_gives_the_same_draws_and_another_others() -> None:
    def first(key: int) -> Any:
        mcmc = ps.MCMC(ps.Kernel(schools), num_warmup=0, num_samples=128, progress_bar=False, compare=False)
        mcmc.run(jax.random.PRNGKey(key), ERRORS, HEIGHTS)
        return np.asarray(mcmc.get_samples()["mean"])

    np.testing.assert_array_equal(first(1), first(1))
    assert np.any(first(1) != first(2))


def small(num_warmup: int = 100, **settings: Any) -> Any:
    given = {"num_samples": 128, "num_chains": 2, "progress_bar": False, "compare": False, **settings}
    return ps.MCMC(ps.Kernel(schools, "mala"), num_warmup=num_warmup, **given)


def test_warm_up_and_run_are_one_run(run: Any) -> None:
    key, whole, parts = jax.random.key(3), small(), small()
    whole.run(key, ERRORS, HEIGHTS)
    parts.warmup(key, ERRORS, HEIGHTS)
    assert parts.post_warmup_state is parts.last_state
    state = parts.post_warmup_state
    known = numpyro.infer.initialize_model(jax.random.key(0), schools, model_args=(ERRORS, HEIGHTS))
    np.testing.assert_allclose(jax.vmap(known.potential_fn)(state.z), state.potential_energy, rtol=1e-4)
    parts.run(key, ERRORS, HEIGHTS)
    assert parts.trace.attrs["num_warmup"] == 0
    assert parts.post_warmup_state is state
    np.testing.assert_array_equal(parts.get_samples()["effect"], whole.get_samples()["effect"])
    # As in NumPyro: the state stays until it is set anew, and None asks for warm-up again.
    parts.run(key, ERRORS, HEIGHTS)
    np.testing.assert_array_equal(parts.get_samples()["effect"], whole.get_samples()["effect"])
    parts.post_warmup_state = None
    parts.run(key, ERRORS, HEIGHTS)
    assert parts.trace.attrs["num_warmup"] == 100


def test_chains_go_on_from_the_last_state() -> None:
    mcmc = small(num_warmup=40)
    mcmc.run(jax.random.key(3), ERRORS, HEIGHTS)
    state, step_size = mcmc.last_state, mcmc.trace.sample_stats["step_size"].values[0, 0]
    assert state.adapt_state.step_size == pytest.approx(step_size)
    first = mcmc.get_samples()["effect"]
    mcmc.post_warmup_state = state
    mcmc.run(state.rng_key, ERRORS, HEIGHTS)
    assert np.all(mcmc.trace.sample_stats["step_size"].values == step_size)
    assert np.any(mcmc.get_samples()["effect"] != first)
    # With so short a step a chain stays where it began; with other data it has their density.
    mcmc.post_warmup_state = state._replace(adapt_state=state.adapt_state._replace(step_size=1e-10))
    mcmc.run(state.rng_key, ERRORS, HEIGHTS + 5)
    for name, values in mcmc.last_state.z.items():
        np.testing.assert_allclose(values, state.z[name], atol=1e-3)
    other = numpyro.infer.initialize_model(jax.random.key(0), schools, model_args=(ERRORS, HEIGHTS + 5))
    energy = jax.vmap(other.potential_fn)(mcmc.last_state.z)
    np.testing.assert_allclose(energy, mcmc.last_state.potential_energy, rtol=1e-4)


def test_warm_up_steps_can_be_collected() -> None:
    mcmc = small()
    mcmc.warmup(jax.random.key(3), ERRORS, HEIGHTS, collect_warmup=True, extra_fields=("adapt_state.step_size",))
    assert mcmc.get_samples(group_by_chain=True)["effect"].shape == (2, 100, 8)
    steps = mcmc.get_extra_fields(group_by_chain=True)["adapt_state.step_size"]
    assert len(np.unique(steps[0])) > 5


def test_states_that_do_not_fit_are_refused(run: Any, tmp_path: Any) -> None:
    mcmc, call = small(num_chains=4), (jax.random.key(0), ERRORS, HEIGHTS)
    mcmc.post_warmup_state = "state"
    with pytest.raises(ValueError, match=r"post_warmup_state is a str, expected None or a state of parsample\.MCMC"):
        mcmc.run(*call)
    mcmc.post_warmup_state = run.last_state
    with pytest.raises(ValueError, match=r"post_warmup_state has the shapes .*\(2,\).*, expected .*\(4,\)"):
        mcmc.run(*call)
    stored = small(store=tmp_path / "run.zarr")
    stored.post_warmup_state = run.last_state
    with pytest.raises(ValueError, match="post_warmup_state is set, but one of the two runs has a store; leave store"):
        stored.run(*call)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kernel is a NUTS, expected a parsample\.Kernel, .*write parsample\.Kernel"):
        ps.MCMC(numpyro.infer.NUTS(schools), num_warmup=1, num_samples=1)
    with pytest.raises(ValueError, match="sampler_options of HMC is 'num_steps', expected one of inverse_mass_matrix"):
        ps.Kernel(schools, "hmc", num_steps=3)
    with pytest.raises(ValueError, match="num_samples is 0, expected a whole number of at least 1"):
        ps.MCMC(ps.Kernel(schools), num_warmup=1, num_samples=0)
    mcmc = ps.MCMC(ps.Kernel(schools), num_warmup=0, num_samples=1, progress_bar=False, compare=False)
    with pytest.raises(ValueError, match="extra_fields has 'tree_depth', expected statistics of the sampler: d"):
        mcmc.run(jax.random.key(0), ERRORS, HEIGHTS, extra_fields=("tree_depth",))
