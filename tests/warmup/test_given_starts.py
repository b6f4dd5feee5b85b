"""Where chains start as a user says it: values, strategies, positions; and what is refused before anything is spent."""

import functools
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to, constraints
from numpyro.infer import init_to_feasible, init_to_mean, init_to_median, init_to_uniform, init_to_value
from numpyro.infer.util import constrain_fn, unconstrain_fn

import parsample as ps
from parsample.results.trace import posterior_dataset
from parsample.targets import EightSchools, MultivariateNormal, NumPyroModel
from parsample.targets.density import LogDensity
from parsample.targets.distribution import Distribution
from parsample.warmup.coordinates import plain
from parsample.warmup.given_starts import given_starts

CHAINS = 3
KEYS = jax.random.split(jax.random.key(7), CHAINS)


def model() -> None:
    """One support depends on another variable."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    top = numpyro.sample("top", dist.Uniform(0, 10))
    numpyro.sample("below", dist.Uniform(0, top))
    with numpyro.plate("row", 2):
        effect = numpyro.sample("effect", dist.Normal(mu, 1))
    numpyro.deterministic("twice", 2 * effect)
    numpyro.sample("y", dist.Normal(effect, 1), obs=jnp.ones(2))


def vectors() -> None:
    """Supports that are no intervals."""
    numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("angles", dist.LKJCholesky(3))
    numpyro.sample("steps", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))


TARGET, VECTORS = NumPyroModel(model), NumPyroModel(vectors)
VALUES: dict[str, Any] = {"mu": 1, "top": 4.0, "below": np.float64(3.0), "effect": (2.0, -1.0)}
ROOT = np.linalg.cholesky(np.array([[1, 0.5, 0.1], [0.5, 1, 0.2], [0.1, 0.2, 1]]))
OF_VECTORS: dict[str, Any] = {"weights": [0.2, 0.3, 0.5], "angles": ROOT, "steps": jnp.array([-1.0, 2.0])}


def placed(target: Any, start: Any) -> dict[str, np.ndarray]:
    """The variables of the trace where chains start, leading axis `chain`."""
    vectors = given_starts(target, start, KEYS)
    assert vectors is not None
    rows = jax.jit(jax.vmap(lambda vector: target.constrain(plain(target).unravel(vector))))(vectors)
    return {name: np.asarray(row) for name, row in rows.items()}


@pytest.mark.parametrize(("made", "values"), [(model, VALUES), (vectors, OF_VECTORS)])
def test_values_of_all_variables_are_where_every_chain_starts(made: Any, values: dict[str, Any]) -> None:
    """Where NumPyro has them in unconstrained coordinates."""
    found = given_starts(TARGET if made is model else VECTORS, values, KEYS)
    assert found is not None
    theirs = unconstrain_fn(made, (), {}, {name: jnp.asarray(value, float) for name, value in values.items()})
    expected = ravel_pytree(theirs)[0]
    np.testing.assert_allclose(found, np.broadcast_to(expected, (CHAINS, expected.size)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mu", "top", "below"])
def test_what_is_not_given_starts_where_it_would_anyway(name: str) -> None:
    """One variable alone; the others as in the random start with that chain's key, in unconstrained coordinates."""
    vectors = given_starts(TARGET, {name: VALUES[name]}, KEYS)
    assert vectors is not None
    for chain, vector in enumerate(vectors):
        position = plain(TARGET).unravel(vector)
        tries = [TARGET.initial_position(jax.random.fold_in(KEYS[chain], again)) for again in range(20)]
        rest = [key for key in position if key != name]
        assert any(all(np.array_equal(position[key], row[key]) for key in rest) for row in tries)
        np.testing.assert_allclose(constrain_fn(model, (), {}, position)[name], VALUES[name], rtol=1e-5)


def test_a_list_has_a_start_for_every_chain() -> None:
    starts = [{"mu": -5.0}, {"mu": 0.0, "top": 2.0}, {"top": 3.0}]
    for given in (starts, tuple(starts)):
        found = placed(TARGET, given)
        np.testing.assert_allclose(found["mu"][:2], [-5, 0])
        np.testing.assert_allclose(found["top"][1:], [2, 3], rtol=1e-6)


def test_what_has_an_axis_for_the_chains_everywhere_is_unconstrained_positions() -> None:
    """The written rule, where both readings fit: a root of a correlation matrix of 3 has 3 unconstrained numbers."""
    target = NumPyroModel(lambda: numpyro.sample("angles", dist.LKJCholesky(3)))
    as_positions, as_values = placed(target, {"angles": ROOT}), placed(target, [{"angles": ROOT}] * 3)
    np.testing.assert_allclose(as_values["angles"], np.stack([ROOT] * 3), atol=1e-5)
    transform = biject_to(constraints.corr_cholesky)
    np.testing.assert_allclose(as_positions["angles"], jax.vmap(transform)(jnp.asarray(ROOT, float)), atol=1e-5)
    # A scalar with an axis for the chains is a position of the whole model only where all the others have it too.
    pair = LogDensity(lambda z: -(z["a"] ** 2) - z["b"] ** 2, {"a": 1.0, "b": 1.0}, {"a": "positive"})
    np.testing.assert_allclose(placed(pair, {"a": [0.0, 1.0, 2.0], "b": [0.0, 0.0, 0.0]})["a"], np.exp([0, 1, 2]))
    with pytest.raises(ValueError, match=r"start\['a'\] has the shape \(3,\), expected \(\); for a start of its"):
        given_starts(pair, {"a": [0.0, 1.0, 2.0]}, KEYS)


def test_values_of_a_log_density_in_its_form_or_by_name() -> None:
    position = {"inner": {"scale": jnp.ones(2), "share": jnp.asarray(0.5)}, "place": jnp.zeros(())}
    bijectors = {"inner.scale": "positive", "inner.share": "unit_interval"}
    target = LogDensity(lambda z: -jnp.sum(z["inner"]["scale"]) - z["place"] ** 2, position, bijectors)
    values: Any = {"inner": {"scale": np.array([0.5, 3.0]), "share": 0.25}, "place": 2.0}
    by_name = {"inner.scale": [0.5, 3.0], "inner.share": 0.25, "place": 2.0}
    for given in (values, by_name, [values] * CHAINS):
        found = placed(target, given)
        np.testing.assert_allclose(found["inner.scale"], [[0.5, 3.0]] * CHAINS, rtol=1e-6)
        np.testing.assert_allclose(found["inner.share"], [0.25] * CHAINS, rtol=1e-6)
    some = placed(target, {"inner.share": 0.9})
    np.testing.assert_allclose(some["inner.share"], 0.9, rtol=1e-6)
    assert len(set(some["place"])) == CHAINS
    bare = LogDensity(lambda x: -jnp.sum(x**2), jnp.zeros(2))
    for bare_given in (
        jnp.array([1.0, 2.0]),
        [[1.0, 2.0]] * CHAINS,
        {"x": [1.0, 2.0]},
        np.tile([1.0, 2.0], (CHAINS, 1)),
    ):
        np.testing.assert_array_equal(placed(bare, bare_given)["x"], [[1.0, 2.0]] * CHAINS)
    rows = LogDensity(lambda z: -(z[0] ** 2) - z[1] ** 2, [jnp.zeros(()), jnp.ones(())])
    np.testing.assert_array_equal(placed(rows, [3.0, 4.0])["1"], [4.0] * CHAINS)
    np.testing.assert_array_equal(placed(rows, [[3.0, 4.0]] * CHAINS)["1"], [4.0] * CHAINS)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (dist.Gamma(2.0, 1.0), {"x": 3.0}),
        (distrax.Beta(2.0, 2.0), {"x": 0.25}),
        (dist.Dirichlet(jnp.ones(3)), {"x": [0.2, 0.3, 0.5]}),
        (distrax.Joint({"a": distrax.Gamma(2.0, 1.0), "b": distrax.Normal(0.0, 1.0)}), {"a": 3.0}),
    ],
)
def test_values_of_a_distribution(given: Any, values: dict[str, Any]) -> None:
    found = placed(Distribution(given), values)
    for name, value in values.items():
        np.testing.assert_allclose(found[name], [value] * CHAINS, rtol=1e-5)
    assert all(len(np.unique(found[name])) == CHAINS for name in found if name not in values)


@pytest.mark.parametrize("strategy", [init_to_median(num_samples=3), init_to_uniform(radius=0.1), init_to_feasible])
def test_strategies_of_numpyro_each_chain_by_its_own_key(strategy: Any) -> None:
    found = placed(TARGET, strategy)
    assert all(np.isfinite(row).all() for row in found.values())
    assert len(np.unique(found["mu"])) == (1 if strategy is init_to_feasible else CHAINS)
    assert (found["below"] < found["top"]).all()
    if strategy is init_to_feasible or getattr(strategy, "keywords", {}).get("radius"):
        vectors = given_starts(TARGET, strategy, KEYS)
        assert float(jnp.abs(vectors).max()) < 0.1001  # type: ignore[arg-type]


def test_strategies_by_what_they_say() -> None:
    np.testing.assert_allclose(placed(GAMMA, init_to_mean)["x"], [3.0] * CHAINS, rtol=1e-6)
    np.testing.assert_allclose(placed(TARGET, init_to_value(values={"top": 3.0}))["top"], [3.0] * CHAINS, rtol=1e-6)
    assert given_starts(TARGET, init_to_value, KEYS) is None, "without values it is a random start"
    own = functools.partial(lambda shift, site: shift if site["name"] == "x" else None, 2.5)
    np.testing.assert_allclose(placed(GAMMA, own)["x"], [2.5] * CHAINS, rtol=1e-6)
    np.testing.assert_allclose(placed(GAMMA, lambda site: 1.5)["x"], [1.5] * CHAINS, rtol=1e-6)


GAMMA = NumPyroModel(lambda: numpyro.sample("x", dist.Gamma(6.0, 2.0)))
POINTED = LogDensity(lambda x: -jnp.sqrt(jnp.abs(x[0])), jnp.zeros(1))
ABOVE = LogDensity(lambda z: jnp.where(z["x"] > 0, -z["x"], -jnp.inf), {"x": 1.0})
REFUSED: list[tuple[Any, Any, str]] = [
    (TARGET, "mode", r"start is 'mode', expected 'random', 'laplace', values of variables, a list of such"),
    (TARGET, {}, r"start is empty, expected"),
    (TARGET, None, r"start is a NoneType, expected"),
    (TARGET, 3.0, r"start is a float, expected"),
    (TARGET, {"tp": 3.0}, r"a name in start is 'tp', expected one of .*\. Did you mean 'top'"),
    (TARGET, {"twice": np.ones(2)}, r"start has 'twice', which follows from other variables; leave it out, and give"),
    (EightSchools(), {"theta": np.ones(8)}, r"start has 'theta', which follows .* give some of .*theta_trans"),
    (TARGET, {"y": np.ones(2)}, r"a name in start is 'y', expected one of"),
    (TARGET, {"mu": np.zeros(2)}, r"start\['mu'\] has the shape \(2,\), expected \(\)\."),
    (TARGET, {"mu": np.zeros(3)}, r"start\['mu'\] has the shape \(3,\), expected \(\); .* give a list of such values"),
    (TARGET, {"mu": np.nan}, r"start\['mu'\] is nan, expected finite numbers"),
    (TARGET, {"effect": [0, np.inf]}, r"start\['effect'\] is \[ 0. inf\], expected finite numbers"),
    (TARGET, {"mu": "one"}, r"start\['mu'\] is 'one', expected real numbers of the shape \(\)"),
    (TARGET, {"mu": 1 + 2j}, r"start\['mu'\] is \(1\+2j\), expected real numbers"),
    (TARGET, {"effect": [[1], [1, 2]]}, r"start\['effect'\] is .*, expected real numbers of the shape \(2,\)"),
    (TARGET, {"top": -1.0}, r"start\['top'\] is -1., which is outside of the support of top"),
    (TARGET, {**VALUES, "top": 2.0}, r"start\['below'\] is 3., which is outside of the support of below"),
    (
        VECTORS,
        {**OF_VECTORS, "weights": [0.2, 0.3, 0.9]},
        r"start\['weights'\] is \[0.2 0.3 0.9\], which is outside",
    ),
    (VECTORS, {**OF_VECTORS, "steps": [2.0, 1.0]}, r"start\['steps'\] is \[2. 1.\], which is outside of the support"),
    (VECTORS, {**OF_VECTORS, "angles": 2 * np.eye(3)}, r"start\['angles'\] is .* which is outside of the support"),
    (TARGET, {**VALUES, "top": 3.0}, r"start has values on the edge of the support, where below would be infinite"),
    (EightSchools(), {"tau": 0.0}, r"start has values on the edge of the support, where log_tau would be infinite"),
    (TARGET, {**VALUES, "mu": 1e30}, r"start leads to log density -inf in chain 0, expected finite ones"),
    (ABOVE, {"x": -1.0}, r"start leads to log density -inf in chain 0, expected finite ones; start elsewhere"),
    (POINTED, {"x": [0.0]}, r"start leads to log density -0 and a gradient that is not finite in chain 0"),
    (
        POINTED,
        np.array([[1.0], [0.0], [1.0]]),
        r"start has log density -0 and a gradient that is not finite in ch",
    ),
    (MultivariateNormal(), {"x": np.full((3, 2), np.nan)}, r"start has log density nan in chain 0, expected finite"),
    (MultivariateNormal(), {"x": np.ones((4, 2))}, r"start\['x'\] has the shape \(4, 2\), expected \(2,\)"),
    (TARGET, [{"mu": 0.0}], r"start has 1 entries, expected 3, one a chain"),
    (TARGET, [{"mu": 0.0}, {"mu": np.nan}, {"mu": 0.0}], r"start\[1\]\['mu'\] is nan, expected finite numbers"),
    (TARGET, [{"mu": 0.0}, 3.0, {"mu": 0.0}], r"start\[1\] is a float, expected"),
    (TARGET, init_to_value(values={"tp": 1.0}), r"a name in start is 'tp', expected one of .*\. Did you mean 'top'"),
    (
        MultivariateNormal(),
        init_to_median,
        r"start is init_to_median, which needs a NumPyro model; for this",
    ),
    (GAMMA, lambda site: -1.0, r"start is <lambda>, which led to log density nan in chain 0, 100 times"),
    (GAMMA, lambda site: {}, r"start is <lambda>, which cannot be applied to the model: "),
]


@pytest.mark.parametrize(("target", "start", "sentence"), REFUSED)
def test_what_no_chain_can_start_at_is_refused(target: Any, start: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        given_starts(target, start, KEYS)


def test_the_first_draw_is_where_the_chain_started() -> None:
    """Through the front door, with steps that are too small to move; and refused there before warm-up begins."""
    still: dict[str, Any] = {"num_warmup": 0, "num_samples": 32, "num_chains": 2, "step_size": 1e-12, "progress": False}
    still |= {"method": "sequential", "compare": False}
    trace = ps.sample(model, sampler="mala", start={"top": 4.0, "mu": -2.0}, **still)
    posterior = posterior_dataset(trace)
    np.testing.assert_allclose(posterior["top"], 4.0, rtol=1e-5)
    np.testing.assert_allclose(posterior["mu"], -2.0, rtol=1e-5)
    assert len(np.unique(posterior["below"].values[:, 0])) == 2
    events: list[Any] = []
    with pytest.raises(ValueError, match="a name in start is 'tp'"):
        ps.sample(model, start={"tp": 4.0}, num_warmup=10, progress=events.append)
    assert not events


def test_double_precision(x64: None) -> None:
    vectors = given_starts(LogDensity(lambda x: -(x**2), 1.0, {"x": "positive"}), np.pi, KEYS)
    assert vectors is not None
    assert vectors.dtype == jnp.float64
    np.testing.assert_allclose(vectors, np.log(np.pi), rtol=1e-15)
