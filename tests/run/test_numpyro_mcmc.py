"""The object with NumPyro's interface: against `parsample.sample`, NumPyro's own MCMC, and ArviZ."""

import pickle
from typing import Any

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.diagnostics
import numpyro.distributions as dist
import numpyro.infer
import pytest
from numpyro.infer import NUTS, Predictive, init_to_median, init_to_value, log_likelihood

import parsample as ps
from parsample.results.trace import as_datatree, posterior_dataset
from parsample.run.numpyro_mcmc import _next_key, _seed

X = np.array([-1.0, 0, 1, 2], np.float32)
Y = np.array([-1.5, 0.2, 1.8, 4.1], np.float32)
KEY = jax.random.key(5)
CHEAP: dict[str, Any] = {"progress_bar": False, "compare": False, "method": "sequential"}
FIELDS = (
    *("potential_energy", "accept_prob", "mean_accept_prob", "num_steps", "energy", "adapt_state.step_size"),
    *("z_grad", "z.noise", "z_grad.slope", "acceptance_rate"),
)


def line(x: Any, y: Any = None) -> None:
    slope = numpyro.sample("slope", dist.Normal(0, 5))
    noise = numpyro.sample("noise", dist.HalfNormal(2))
    with numpyro.plate("row", len(x)):
        fit = numpyro.deterministic("fit", slope * x)
        numpyro.sample("y", dist.Normal(fit, noise), obs=y)


def energy_of_numpyro(y: Any = Y) -> Any:
    known: Any = numpyro.infer.initialize_model(jax.random.key(0), line, model_args=(X, y))
    return jax.jit(jax.vmap(known.potential_fn))


def made(kernel: Any = None, **given: Any) -> Any:
    kernel = ps.Kernel(line, "hmc", num_steps=3) if kernel is None else kernel
    return ps.MCMC(kernel, **{"num_warmup": 20, "num_samples": 12, "num_chains": 2, **CHEAP, **given})


@pytest.fixture(scope="module")
def run() -> Any:
    mcmc = made()
    mcmc.run(KEY, X, y=Y, extra_fields=FIELDS)
    return mcmc


def test_draws_and_fields_are_those_of_the_trace(run: Any) -> None:
    tree = as_datatree(run.trace)
    grouped, flat = run.get_samples(group_by_chain=True), run.get_samples()
    assert set(grouped) == {"slope", "noise", "fit"}
    assert flat["fit"].shape == (24, 4)
    np.testing.assert_array_equal(grouped["fit"], tree["posterior"]["fit"])
    np.testing.assert_array_equal(flat["slope"][12:], grouped["slope"][1])
    fields = run.get_extra_fields(group_by_chain=True)
    assert set(fields) == {"diverging", *FIELDS}
    np.testing.assert_array_equal(fields["potential_energy"], -tree["sample_stats"]["lp"])
    np.testing.assert_array_equal(fields["energy"], tree["sample_stats"]["energy"])
    np.testing.assert_array_equal(fields["accept_prob"], fields["acceptance_rate"])
    means = [[np.mean(row[: number + 1]) for number in range(12)] for row in np.asarray(fields["accept_prob"])]
    np.testing.assert_allclose(fields["mean_accept_prob"], means, rtol=1e-5)
    assert np.all(np.asarray(fields["num_steps"]) == 3)
    assert np.all(fields["adapt_state.step_size"] == run.last_state.adapt_state.step_size)
    assert run.verdict.steps == 12


@pytest.mark.slow
def test_unconstrained_positions_and_slopes_are_numpyros(run: Any) -> None:
    grouped, fields = run.get_samples(group_by_chain=True), run.get_extra_fields(group_by_chain=True)
    np.testing.assert_allclose(fields["z.noise"], np.log(grouped["noise"]), rtol=1e-5)
    free = {"slope": grouped["slope"], "noise": fields["z.noise"]}
    energy, pull = jax.vjp(jax.vmap(energy_of_numpyro()), free)
    slopes = pull(jnp.ones_like(energy))[0]
    np.testing.assert_allclose(fields["z_grad"]["noise"], slopes["noise"], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(fields["z_grad.slope"], fields["z_grad"]["slope"])
    np.testing.assert_allclose(energy, fields["potential_energy"], rtol=1e-4)


def test_the_last_state_is_where_the_chains_stand(run: Any) -> None:
    state = run.last_state
    assert set(state.z) == {"slope", "noise"}
    np.testing.assert_array_equal(state.z["slope"], run.get_samples(group_by_chain=True)["slope"][:, -1])
    np.testing.assert_allclose(energy_of_numpyro()(state.z), state.potential_energy, rtol=1e-4)
    inverse = state.adapt_state.inverse_mass_matrix["noise", "slope"]
    root = state.adapt_state.mass_matrix_sqrt["noise", "slope"]
    assert inverse.shape[0] == 2
    dense = inverse if inverse.ndim == 2 else jnp.diag(inverse)
    root = root if root.ndim == 2 else jnp.diag(root)
    np.testing.assert_allclose(dense @ root @ root.T, np.eye(2), atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # ArviZ speaks of Pareto k and of its own future
def test_what_people_do_after_a_run(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tree = as_datatree(arviz.from_numpyro(run, log_likelihood=True))
    assert tree["posterior"]["fit"].dims == ("chain", "draw", "row")
    np.testing.assert_array_equal(tree["posterior"]["fit"], run.get_samples(group_by_chain=True)["fit"])
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)
    assert tree["log_likelihood"]["y"].shape == (2, 12, 4)
    run.print_summary()
    printed = capsys.readouterr().out
    assert "r_hat" in printed
    assert "slope" in printed
    assert "fit[3]" not in printed
    assert "Number of divergences: " in printed
    run.print_summary(exclude_deterministic=False)
    assert "fit[3]" in capsys.readouterr().out
    numpyro.diagnostics.print_summary(run.get_samples(), group_by_chain=False)
    assert "slope" in capsys.readouterr().out
    drawn = Predictive(line, run.get_samples())(jax.random.key(1), X)
    assert drawn["y"].shape == (24, 4)
    assert log_likelihood(line, run.get_samples(), X, Y)["y"].shape == (24, 4)
    run.transfer_states_to_host()
    again = pickle.loads(pickle.dumps(run))
    np.testing.assert_array_equal(again.get_samples()["fit"], run.get_samples()["fit"])
    np.testing.assert_array_equal(again.last_state.potential_energy, run.last_state.potential_energy)


def test_what_has_no_effect_on_the_draws_and_thinning(run: Any) -> None:
    """Thinning keeps the last draw of every three, as NumPyro's."""
    given: dict[str, Any] = {"chain_method": "sequential", "jit_model_args": True, "progress_rate": 5}
    other = made(thinning=3, **given)
    other.run(KEY, X, y=Y, extra_fields=("~z.fit",))
    expected = run.get_samples(group_by_chain=True)["slope"][:, 2::3]
    np.testing.assert_array_equal(other.get_samples(group_by_chain=True)["slope"], expected)
    assert set(other.get_samples()) == {"slope", "noise"}
    assert set(other.get_extra_fields()) == {"diverging"}


def test_keys_for_each_chain() -> None:
    keys, old = jax.random.split(KEY, 3), jax.random.split(jax.random.PRNGKey(5), 3)
    for batch in (keys, old):
        seeds = {_seed(batch), _seed(batch[::-1]), _seed(batch.at[2].set(batch[0])), _seed(batch[0])}
        assert len(seeds) == 4
        assert _next_key(batch).shape == batch.shape
    assert _seed(jax.random.PRNGKey(5)) == _seed(KEY)
    assert _seed(_next_key(KEY)) != _seed(KEY)


def test_chains_with_keys_of_their_own_and_another_number_of_chains() -> None:
    mcmc = made()
    mcmc.num_chains = 3
    keys = jax.random.split(KEY, 3)
    mcmc.run(keys, X, Y)
    assert mcmc.get_samples(group_by_chain=True)["slope"].shape == (3, 12)
    assert mcmc.last_state.rng_key.shape == (3,)


def test_warm_up_and_run_are_one_run(run: Any) -> None:
    parts = made()
    parts.warmup(KEY, X, y=Y)
    assert parts.post_warmup_state is parts.last_state
    state = parts.post_warmup_state
    np.testing.assert_allclose(energy_of_numpyro()(state.z), state.potential_energy, rtol=1e-4)
    parts.run(state.rng_key, X, y=Y)
    assert parts.trace.attrs["num_warmup"] == 0
    assert parts.post_warmup_state is state
    np.testing.assert_array_equal(parts.get_samples()["fit"], run.get_samples()["fit"])
    # As in NumPyro: the state stays until it is set anew, and None asks for warm-up again.
    parts.post_warmup_state = None
    parts.run(KEY, X, y=Y)
    assert parts.trace.attrs["num_warmup"] == 20
    np.testing.assert_array_equal(parts.get_samples()["fit"], run.get_samples()["fit"])


def test_chains_go_on_from_the_last_state(run: Any) -> None:
    """With so short a step a chain stays where it began; with other data it has their density."""
    mcmc, state = made(), run.last_state
    assert state.adapt_state.step_size == pytest.approx(run.trace.sample_stats["step_size"].values[0, 0])
    mcmc.post_warmup_state = state._replace(adapt_state=state.adapt_state._replace(step_size=1e-10))
    mcmc.run(state.rng_key, X, Y + 5)
    for name, values in mcmc.last_state.z.items():
        np.testing.assert_allclose(values, state.z[name], atol=1e-3)
    energy = energy_of_numpyro(Y + 5)(mcmc.last_state.z)
    np.testing.assert_allclose(energy, mcmc.last_state.potential_energy, rtol=1e-4)
    assert float(mcmc.last_state.adapt_state.step_size) == pytest.approx(1e-10)
    mcmc.post_warmup_state = state
    mcmc.run(state.rng_key, X, Y)
    assert np.all(mcmc.get_samples()["slope"] != run.get_samples()["slope"])


def test_warm_up_steps_can_be_collected() -> None:
    mcmc = made(thinning=2)
    fields = ("adapt_state.step_size", "potential_energy", "mean_accept_prob")
    mcmc.warmup(KEY, X, y=Y, collect_warmup=True, extra_fields=fields)
    assert mcmc.get_samples(group_by_chain=True)["fit"].shape == (2, 10, 4)
    found = mcmc.get_extra_fields(group_by_chain=True)
    assert set(found) == {"diverging", *fields}
    assert len(np.unique(found["adapt_state.step_size"][0])) > 2


def test_one_chain_has_no_axis_for_chains_and_starts_where_it_is_told() -> None:
    """So short a step that every draw is where the chain began."""
    stay: dict[str, Any] = {"num_warmup": 0, "num_samples": 1, "num_chains": 1}
    start = init_to_value(values={"slope": 3.0, "noise": 0.5})
    kernel = ps.Kernel(line, "mala", init_strategy=start, step_size=1e-10, adapt_step_size=False)
    one = made(kernel, postprocess_fn=lambda z: {"doubled": 2 * z["slope"]}, **stay)
    one.run(KEY, X, Y)
    state = one.last_state
    assert jnp.shape(state.z["slope"]) == state.potential_energy.shape == ()
    np.testing.assert_allclose(state.z["slope"], 3.0, rtol=1e-3)
    np.testing.assert_allclose(state.z["noise"], np.log(0.5), rtol=1e-3)
    np.testing.assert_allclose(one.get_samples()["doubled"], [6.0], rtol=1e-3)
    np.testing.assert_allclose(one.trace.posterior["noise"].values, [[0.5]], rtol=1e-3)
    one.run(KEY, X, Y, init_params={"slope": jnp.asarray(-1.0), "noise": jnp.asarray(0.0)})
    np.testing.assert_allclose(one.last_state.z["slope"], -1.0, rtol=1e-3)
    one.post_warmup_state = state
    one.run(KEY, X, Y)
    np.testing.assert_allclose(one.last_state.z["slope"], 3.0, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:NumPyro's NUTS")
def test_chains_start_by_the_strategy_of_a_kernel_each_elsewhere() -> None:
    """That of one of NumPyro's kernels, too; and values by `start=`."""
    stay: dict[str, Any] = {"num_warmup": 0, "num_samples": 1, "step_size": 1e-10}
    found = made(NUTS(line, init_strategy=init_to_median(num_samples=3)), **stay)
    found.run(KEY, X, Y)
    slopes = found.get_samples()["slope"]
    assert slopes[0] != slopes[1]
    told = made(ps.Kernel(line, "mala"), start=[{"noise": 0.5}, {"noise": 2.0}], **stay)
    told.run(KEY, X, Y)
    np.testing.assert_allclose(told.get_samples()["noise"], [0.5, 2.0], rtol=1e-3)
    with pytest.raises(ValueError, match=r"a name in start is 'slop', expected one of .* Did you mean 'slope'"):
        made(NUTS(line, init_strategy=init_to_value(values={"slop": 1.0}))).run(KEY, X, Y)


def bowl(position: Any) -> Any:
    """Half the sum of squares, by a loop that only forward mode can differentiate."""
    both = jnp.concatenate([position["a"], position["b"][0][None]])
    begin = jnp.zeros((), int), jnp.zeros(())
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + both[s[0]] ** 2 / 2), begin)[1]


@pytest.mark.slow
def test_a_potential_function_of_any_pytree_in_forward_mode() -> None:
    kernel = ps.Kernel(potential_fn=bowl, forward_mode_differentiation=True, num_steps=2)
    mcmc = made(kernel, num_warmup=80, num_samples=128)
    start = {"a": jnp.ones((2, 2)), "b": [jnp.zeros(2)]}
    mcmc.run(KEY, init_params=start, extra_fields=("potential_energy", "z.a"))
    grouped: Any = mcmc.get_samples(group_by_chain=True)
    assert str(jax.tree.structure(grouped)) == str(jax.tree.structure(start))
    assert grouped["a"].shape == (2, 128, 2)
    energy = jax.vmap(jax.vmap(bowl))(grouped)
    np.testing.assert_allclose(energy, mcmc.get_extra_fields(True)["potential_energy"], rtol=1e-5)
    np.testing.assert_array_equal(mcmc.get_extra_fields(True)["z.a"], grouped["a"])
    # Half a chi-squared of three degrees of freedom, mean 3 / 2.
    assert 1.0 < float(jnp.mean(energy)) < 2.0
    np.testing.assert_allclose(jax.vmap(bowl)(mcmc.last_state.z), mcmc.last_state.potential_energy, rtol=1e-5)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key)
    assert mcmc.get_samples()["b"][0].shape == (256,)


def test_states_that_do_not_fit_are_refused(run: Any, tmp_path: Any) -> None:
    mcmc, call = made(num_chains=4), (KEY, X, Y)
    mcmc.post_warmup_state = "state"
    with pytest.raises(ValueError, match=r"post_warmup_state is a str, expected None or a state of parsample\.MCMC"):
        mcmc.run(*call)
    mcmc.post_warmup_state = run.last_state
    with pytest.raises(ValueError, match=r"post_warmup_state has the shapes .*\(2,\).*, expected .*\(4,\)"):
        mcmc.run(*call)
    stored = made(store=tmp_path / "run.zarr")
    stored.post_warmup_state = run.last_state
    with pytest.raises(ValueError, match="post_warmup_state is set, but one of the two runs has a store; leave store"):
        stored.run(*call)


CONSTRUCTION: list[tuple[dict[str, Any], str]] = [
    ({"num_samples": 0}, "num_samples is 0, expected a whole number of at least 1"),
    ({"num_warmup": -1}, "num_warmup is -1, expected a whole number of at least 0"),
    ({"num_chains": 0}, "num_chains is 0, expected a whole number of at least 1"),
    ({"thinning": 0}, "thinning is 0, expected a whole number of at least 1"),
    ({"thinning": 13}, "thinning is 13, expected at most num_samples, which is 12"),
    ({"chain_method": "pmap"}, "chain_method is 'pmap', expected one of parallel, sequential, vectorized, or a func"),
    ({"postprocess_fn": 3}, "postprocess_fn is a int, expected a function of an unconstrained position"),
    ({"thin": 2}, r"thin is set elsewhere in parsample\.MCMC: write thinning="),
    ({"seed": 2}, r"seed is set elsewhere in parsample\.MCMC: give the key to run"),
    ({"metod": "picard"}, "an argument is 'metod', expected one of .* Did you mean 'method'"),
    (
        {"kernel": ps.Kernel(line, init_strategy=init_to_median), "start": "laplace"},
        "start is given, and the kernel says",
    ),
    ({"kernel": ps.Kernel(line, dense_mass=True), "mass": "dense"}, "mass is given, and the kernel says 'dense' of it"),
]


@pytest.mark.parametrize(("given", "sentence"), CONSTRUCTION)
def test_bad_arguments_are_refused_at_construction(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(**given)


CALLS: list[tuple[Any, dict[str, Any], str]] = [
    (0, {}, r"rng_key is a int, expected a key; write jax\.random\.key\(0\)"),
    (
        jax.random.split(KEY, 3),
        {},
        r"rng_key holds keys of the shape \(3,\), expected one key, or one for each of the 2",
    ),
    (KEY, {"extra_fields": ("tree_depth",)}, "a name in extra_fields is 'tree_depth', expected one of diverging, pot"),
    (KEY, {"extra_fields": ("z.slop",)}, "a name in extra_fields is 'z.slop', .* Did you mean 'z.slope'"),
    (KEY, {"extra_fields": ("~z.slop",)}, "a site that extra_fields leaves out is 'slop', expected one of"),
    (KEY, {"extra_fields": "num_steps"}, r"extra_fields is 'num_steps', expected a tuple of names, such as"),
    (
        KEY,
        {"init_params": {"slope": jnp.zeros(2)}},
        "init_params has the shapes .* expected .* with a leading axis of chains",
    ),
    # Values, which `start` would take.
    (KEY, {"init_params": {"slope": 0.0, "noise": 1.0}}, "init_params has the shapes .* with a leading axis of chains"),
]


@pytest.mark.parametrize(("key", "given", "sentence"), CALLS)
def test_bad_calls_are_refused_before_anything_is_drawn(key: Any, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        made().run(key, X, Y, **given)


@pytest.mark.filterwarnings("ignore:NumPyro's NUTS")
def test_what_cannot_be_traced_or_applied_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"init_params has the shapes \(3,\), expected a leading axis for the 2 chains"
    ):
        made(ps.Kernel(potential_fn=lambda z: z @ z)).run(KEY, init_params=jnp.zeros(3))
    with pytest.raises(ValueError, match=r"rng_key is traced, but parsample\.MCMC decides on the host and cannot run"):
        jax.jit(lambda key: made(NUTS(line)).run(key, X, Y))(KEY)
    broken = made(postprocess_fn=lambda z: z["intercept"])
    with pytest.raises(ValueError, match=r"postprocess_fn cannot be applied to an unconstrained .*intercept"):
        broken.run(KEY, X, Y)


def with_odd_sites(y: Any) -> None:
    x = numpyro.handlers.scope(lambda: numpyro.sample("x", dist.Normal()), "a")()
    numpyro.deterministic("phase", jnp.exp(1j * x))
    numpyro.factor("f", -(x**2))
    numpyro.sample("draw", dist.Normal(x))
    numpyro.sample("y", dist.Normal(x), obs=y)


@pytest.mark.filterwarnings("ignore:the trace holds what files can hold")
def test_samples_have_the_names_of_the_sites_whatever_files_can_hold() -> None:
    mcmc = ps.MCMC(ps.Kernel(with_odd_sites, "rwm"), num_warmup=0, num_samples=20, **CHEAP)
    mcmc.run(KEY, 1.0, extra_fields=("potential_energy",))
    samples = mcmc.get_samples()
    assert set(samples) == {"a/x", "draw", "phase"}
    np.testing.assert_allclose(samples["phase"], np.exp(1j * samples["a/x"]), rtol=1e-5)
    np.testing.assert_array_equal(posterior_dataset(mcmc.trace)["a.x"][0], samples["a/x"])
    np.testing.assert_array_equal(mcmc.last_state.z["a/x"], samples["a/x"][-1])


def with_nothing(size: int) -> None:
    nothing = numpyro.sample("nothing", dist.Normal(jnp.zeros(size), 1.0))
    numpyro.deterministic("twice", 2 * nothing)
    numpyro.deterministic("wave", jnp.exp(1j * nothing))
    numpyro.sample("one", dist.Dirichlet(jnp.ones(1)))
    numpyro.sample("x", dist.Normal())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the trace holds what files can hold")
def test_sites_without_numbers_are_among_the_samples_as_in_numpyro(tmp_path: Any) -> None:
    """Which no file holds: of a run in memory or with a store, and of warm-up. NumPyro's NUTS returns these shapes."""
    single, empty = np.dtype(np.float32), (0,)
    expected: dict[str, Any] = {
        "nothing": (empty, single),
        "twice": (empty, single),
        "wave": (empty, np.dtype(np.complex64)),
    }
    expected |= {"one": ((1,), single), "x": ((), single)}
    for options in ({}, {"store": tmp_path / "run.zarr"}):
        mcmc = made(ps.Kernel(with_nothing, "rwm"), **options)
        mcmc.run(KEY, 0)
        found = mcmc.get_samples()
        assert {name: (values.shape[1:], values.dtype) for name, values in found.items()} == expected
        assert found["nothing"].shape == (24, 0)
        assert mcmc.get_samples(group_by_chain=True)["wave"].shape == (2, 12, 0)
        assert set(posterior_dataset(mcmc.trace)) == {"one", "x"}
    mcmc = made(ps.Kernel(with_nothing, "rwm"), thinning=2)
    mcmc.warmup(KEY, 0, collect_warmup=True, extra_fields=("~z.twice",))
    assert mcmc.get_samples(group_by_chain=True)["nothing"].shape == (2, 10, 0)
    assert "twice" not in mcmc.get_samples()
