"""What a trace will look like, found before anything is sampled: names, dims, groups, and what is refused."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpyro import handlers

import parsample as ps
from parsample.results.dims import plain_names
from parsample.results.form import Form, find_form
from parsample.results.trace import as_datatree, load_trace, save_trace
from parsample.results.variables import RESERVED, Variables, storable_name
from parsample.targets import NumPyroModel, Target
from parsample.targets.density import LogDensity

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)
GROUPS = ("log_likelihood", "posterior_predictive", "prior")


def quiet(target: Target, groups: Any = (), **options: Any) -> Form:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return find_form(target, groups, **options)


class Given(Target):
    """A target whose variables are given."""

    name: ClassVar[str] = "given"

    values: dict[str, Any]

    def logdensity(self, position: Any) -> jax.Array:
        """Return that of a normal distribution."""
        return -0.5 * position["x"] ** 2

    def position_template(self) -> dict[str, jax.Array]:
        """Return zero."""
        return {"x": jnp.zeros(())}

    def constrain(self, position: Any) -> dict[str, Any]:
        """Return the values."""
        return self.values


# NumPyro models that were sampled to the end and had no trace.


def factors() -> None:
    x = numpyro.sample("x", dist.Normal())
    numpyro.factor("free", -(x**2))
    with numpyro.plate("row", 3):
        numpyro.factor("in a plate", -x * jnp.ones(3))
        numpyro.sample("y", dist.Normal(x), obs=jnp.ones(3))


def scoped() -> None:
    inner = lambda: numpyro.sample("x", dist.Normal())  # noqa: E731
    handlers.scope(inner, "a")()
    handlers.scope(inner, "b")()
    numpyro.sample("a.x", dist.Normal())
    numpyro.sample("y", dist.Normal(), obs=1.0)


def many_dimensional() -> None:
    mean = numpyro.sample("mean", dist.Normal().expand([3]).to_event(1))
    with numpyro.plate("row", 2):
        fn = dist.MultivariateNormal(mean, jnp.eye(3))
        numpyro.sample("y", fn, obs=MATRIX, infer={"event_dims": ["k"]})


def broadcast() -> None:
    with numpyro.plate("right", 3), numpyro.plate("left", 2):
        x = numpyro.sample("x", dist.Normal())
        numpyro.sample("y", dist.Normal(x), obs=jnp.zeros(3))


def odd() -> None:
    x = numpyro.sample("x", dist.Normal())
    numpyro.deterministic("z", x + 1j)
    numpyro.deterministic("empty", jnp.zeros((0, 2)))
    numpyro.deterministic("key", jax.random.key(0))
    numpyro.deterministic("half", x.astype(jnp.bfloat16))
    numpyro.deterministic("pair", (x, {"twice": 2 * x}))
    numpyro.deterministic("number", 3.0)


def empty_leaf() -> None:
    x = numpyro.sample("x", dist.Normal().expand([0]).to_event(1))
    numpyro.sample("z", dist.Normal())
    numpyro.sample("y", dist.Normal(jnp.sum(x)), obs=1.0)


def reserved() -> None:
    with numpyro.plate("draw", 3):
        x = numpyro.sample("x", dist.Normal())
        with numpyro.plate("row", 2):
            numpyro.sample("chain", dist.Normal(x))


def named_like_a_dim() -> None:
    x = numpyro.sample("x", dist.Normal().expand([2]).to_event(1))
    numpyro.deterministic("x_dim_0", jnp.ones(5) * x[0])


def arguments(y: Any, tau: float, key: Any) -> None:
    scale = numpyro.sample("tau", dist.HalfNormal(tau).expand([3]).to_event(1))
    with numpyro.plate("row", 6):
        numpyro.sample("y", dist.Normal(jnp.sum(scale)), obs=y.ravel())


# Model, its arguments, groups, and what is then in the trace: group -> variable -> dims; and the attributes.
FOUND: dict[str, tuple[Any, tuple, Any, Mapping[str, Mapping[str, tuple[str, ...]]], Mapping[str, Any]]] = {
    "factors": (
        factors,
        (),
        GROUPS,
        {group: {"y": ("row",)} for group in ("log_likelihood", "observed_data", "posterior_predictive")},
        {},
    ),
    "scoped": (
        scoped,
        (),
        GROUPS,
        {"posterior": {"a.x": (), "a.x_": (), "b.x": ()}, "prior": {"a.x": (), "a.x_": (), "b.x": ()}},
        {"renamed": {"a/x": ["a.x_"], "b/x": ["b.x"]}},
    ),
    "many-dimensional": (
        many_dimensional,
        (),
        GROUPS,
        {"log_likelihood": {"y": ("row",)}, "posterior_predictive": {"y": ("row", "k")}},
        {},
    ),
    "broadcast": (
        broadcast,
        (),
        GROUPS,
        {
            "observed_data": {"y": ("right",)},
            "log_likelihood": {"y": ("left", "right")},
            "prior_predictive": {"y": ("left", "right")},
        },
        {},
    ),
    "odd": (
        odd,
        (),
        ("prior",),
        {
            group: {name: () for name in ("x", "z.real", "z.imag", "half", "pair.0", "pair.1.twice", "number")}
            for group in ("posterior", "prior")
        },
        {"renamed": {"z": ["z.real", "z.imag"]}, "left_out": ["empty", "key"]},
    ),
    "an empty leaf": (empty_leaf, (), GROUPS, {"posterior": {"z": ()}}, {"left_out": ["x"]}),
    "reserved": (
        reserved,
        (),
        (),
        {"posterior": {"x": ("draw_",), "chain_": ("row", "draw_")}},
        {"renamed": {"chain": ["chain_"]}, "renamed_dims": {"draw": "draw_"}},
    ),
    "named like a dim": (
        named_like_a_dim,
        (),
        (),
        {"posterior": {"x": ("x_dim_0_",), "x_dim_0": ("x_dim_0_dim_0",)}},
        {"renamed_dims": {"x_dim_0": "x_dim_0_"}},
    ),
    "arguments": (
        arguments,
        (MATRIX, 2.0, jax.random.key(0)),
        GROUPS,
        {"constant_data": {"y": ("y_dim_0", "y_dim_1"), "tau": ()}, "observed_data": {"y": ("row",)}},
        {},
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_a_model_has_a_trace(case: str) -> None:
    model, given_arguments, groups, expected, notes = FOUND[case]
    form = quiet(NumPyroModel(model, *given_arguments), groups)
    for group, variables in expected.items():
        assert form.group_dims[group] == dict(variables)
    assert form.notes == notes


def test_what_is_renamed_is_said_once() -> None:
    with pytest.warns(UserWarning, match="files can hold: 'z' is z.real and z.imag in it; 'empty' holds no "):
        find_form(NumPyroModel(odd))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_form(NumPyroModel(factors))


ODD = [*RESERVED, "a/b", "a.b", "a\\b", ".", "..", "a" * 300]


@given(st.lists(st.text(max_size=8) | st.sampled_from(ODD), max_size=6))
def test_names_in_a_trace_are_distinct_and_can_be_stored(names: list[str]) -> None:
    variables = Variables(Given({name: jnp.zeros(()) for name in [*names, "x"]}))
    found = list(variables.shapes)
    assert len(set(found)) == len(found) == len({*names, "x"})
    assert all(storable_name(name) == name and name not in RESERVED for name in found)
    assert all(name in found for name in names if storable_name(name) == name)
    back = variables.given({name: number for number, name in enumerate(found)})
    assert set(back) == {*names, "x"}
    assert len(set(back.values())) == len(found)


def test_plain_numbers_become_arrays() -> None:
    """Of a model as of a transform."""
    numbers: dict[str, Any] = {"whole": 3, "real": 2.5, "yes": True, "complex": 1j}
    for variables in (Variables(Given(numbers)), Variables(Given({"x": jnp.zeros(2)}), lambda draw: numbers)):
        found = variables.of_draw(variables.target.position_template())
        assert set(found) == set(variables.shapes) == {"whole", "real", "yes", "complex.real", "complex.imag"}
        for name, value in found.items():
            assert (value.shape, value.dtype) == ((), variables.shapes[name].dtype)


def test_names_that_are_stored_come_back(tmp_path: Any) -> None:
    odd_names = [*ODD, "\0", "\ud800", "é", " ", "~", ""]
    form = quiet(Given({name: jnp.full((), number) for number, name in enumerate(odd_names)}))
    values = form.variables.named({name: np.full((1, 2), number) for number, name in enumerate(odd_names)})
    trace = form.build({"posterior": values}, {})
    tree = as_datatree(load_trace(save_trace(trace, tmp_path / "trace.nc")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr says that its third format has no word on consolidated metadata
        as_datatree(trace).to_zarr(tmp_path / "trace.zarr", consolidated=True)
    for back in (tree, as_datatree(load_trace(tmp_path / "trace.zarr"))):
        draws: Any = back["posterior"].to_dataset()
        found = form.variables.given(draws)
        assert [int(found[name][0, 0]) for name in odd_names] == list(range(len(odd_names)))


def square() -> None:
    """Plates of one size: only their places tell them apart."""
    with numpyro.plate("a", 3):
        x = numpyro.sample("x", dist.Normal())
        with numpyro.plate("b", 3):
            y = numpyro.sample("y", dist.Normal())
            numpyro.deterministic("of_a", 2 * x)
            numpyro.deterministic("of_both", 2 * y)
            numpyro.deterministic("event", jnp.stack([y, y, y], -1))
            numpyro.sample("vector", dist.Normal(jnp.zeros(3), 1).to_event(1))
    with numpyro.plate("c", 3, dim=-2):
        numpyro.sample("z", dist.Normal())
        with numpyro.plate("d", 3, dim=-1):
            numpyro.sample("w", dist.Normal())
            numpyro.sample("observed", dist.Normal(), obs=jnp.zeros((3, 3)))


def test_square_nested_plates_have_their_own_dims() -> None:
    expected = {
        "x": ("a",),
        "y": ("b", "a"),
        "of_a": ("a",),
        "of_both": ("b", "a"),
        "event": ("b", "a", "event_dim_0"),
        "vector": ("b", "a", "vector_dim_0"),
        "z": ("c", "z_dim_0"),
        "w": ("c", "d"),
    }
    form = quiet(NumPyroModel(square), ("log_likelihood",))
    assert form.group_dims["posterior"] == expected
    assert form.group_dims["log_likelihood"] == {"observed": ("c", "d")}


class WithoutDraws(dist.Normal):
    """A distribution that cannot be drawn from."""

    def sample(self, key: Any, sample_shape: Any = ()) -> Any:
        """Refuse."""
        raise NotImplementedError


def undrawable() -> None:
    x = numpyro.sample("x", dist.Normal())
    numpyro.sample("y", WithoutDraws(x), obs=1.0)


def only_a_factor() -> None:
    numpyro.factor("f", -(numpyro.sample("x", dist.Normal()) ** 2))


def on_a_sphere() -> None:
    numpyro.sample("x", dist.ProjectedNormal(jnp.ones(3)))


def duplicated() -> None:
    with numpyro.plate("x", 2):
        numpyro.sample("x", dist.Normal())


@pytest.mark.parametrize(
    ("model", "groups", "message"),
    [
        (
            undrawable,
            ("posterior_predictive",),
            r"for no draws can be made of y \(WithoutDraws\): .* leave it out",
        ),
        (undrawable, ("prior",), r"groups asks for 'prior', .* no draws can be made of y \(WithoutDraws\)"),
        (only_a_factor, ("log_likelihood",), "has nothing for it, for it observes no data; leave it out, or observe"),
        (on_a_sphere, (), "target on_a_sphere cannot be run as a NumPyro model .*handlers.reparam"),
        (duplicated, (), "target duplicated cannot be run as a NumPyro model .*unique names but got `x` duplicated"),
    ],
)
def test_what_cannot_be_in_a_trace_is_refused_before_anything_is_spent(model: Any, groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_form(NumPyroModel(model), groups)


def test_a_target_of_nothing_but_empty_arrays() -> None:
    with pytest.raises(ValueError, match="the target given has no variable with numbers in it, expected at least one"):
        find_form(Given({"e": jnp.zeros(0)}))


SCHOOLS = [f"school {number}" for number in range(8)]


def test_dims_and_coords_that_are_asked_for() -> None:
    form = quiet(ps.targets.EightSchools(), dims={"theta": ["place"], "mu": []}, coords={"place": SCHOOLS})
    assert form.group_dims["posterior"]["theta"] == ("place",)
    assert form.group_dims["posterior"]["theta_trans"] == ("school",)
    assert form.coords["place"] == SCHOOLS
    density = LogDensity(lambda p: -jnp.sum(p["w"] ** 2), {"w": jnp.zeros((2, 3))})
    assert quiet(density, dims={"w": ("a", "b")}).group_dims["posterior"] == {"w": ("a", "b")}
    likelihood = quiet(NumPyroModel(many_dimensional), GROUPS, dims={"y": ["r", "part"]}, coords={"part": list("abc")})
    assert likelihood.group_dims["log_likelihood"]["y"] == ("r",)
    assert likelihood.group_dims["posterior_predictive"]["y"] == ("r", "part")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": {"thetta": ["place"]}}, "a name in dims is 'thetta', expected one of .*Did you mean 'theta'"),
        (
            {"dims": {"theta": ["a", "b"]}},
            r"dims\['theta'\] has 2 names .* for shape \(8,\) in 'posterior', expec",
        ),
        ({"dims": {"theta": ["draw"]}}, r"dims\['theta'\] has the name 'draw', expected text that is not 'chain'"),
        ({"dims": {"theta": ["mu"]}}, r"dims\['theta'\] names 'mu', which is a variable; give the dim another name"),
        ({"dims": {"theta": ["a", "a"]}}, r"dims\['theta'\] is \['a', 'a'\], expected names that differ"),
        (
            {"dims": {"theta": ["place"]}, "coords": {"place": ["one"]}},
            r"dims\['theta'\] names 'place' an axis of length 8 in 'posterior', but coords\['place'\] has 1 labels",
        ),
        ({"coords": {"scool": SCHOOLS}}, "a name in coords is 'scool', expected one of .*Did you mean 'school'"),
    ],
)
def test_dims_and_coords_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quiet(ps.targets.EightSchools(), **options)


def test_dims_and_coords_as_settings_hold_them() -> None:
    assert plain_names("dims", {"theta": "school", "w": ("a", "b")}) == {"theta": ["school"], "w": ["a", "b"]}
    found = plain_names("coords", {"year": np.arange(2), "day": np.array(["2024-01-01"], "datetime64[D]")})
    assert found == {"year": [0, 1], "day": ["2024-01-01"]}
    assert plain_names("coords", None) is None
    for argument, given_names in (("dims", ["school"]), ("coords", {"school": "Choate"}), ("dims", {"": ["a"]})):
        with pytest.raises(ValueError, match=rf"{argument} is .*, expected names, each with a list, such as {{"):
            plain_names(argument, given_names)


def test_a_transform_that_makes_another_shape_loses_the_dims() -> None:
    form = quiet(ps.targets.EightSchools(), transform=lambda draw: {"theta": draw["theta"][:4], "mu": draw["mu"]})
    assert form.group_dims["posterior"] == {"theta": ("theta_dim_0",), "mu": ()}
