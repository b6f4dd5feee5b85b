"""Names of leaves: as given where that can be, and no two the same."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsample.targets.density import LogDensity
from parsample.targets.names import distinct, leaf_names


class Pair(NamedTuple):
    """A pytree with attributes."""

    left: Any
    right: Any


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (1.0, ["x"]),
        ({"B+": 1.0, "B-": 2.0}, ["B+", "B-"]),
        ({"a": {"b": 1.0}, "a.b": 2.0}, ["a.b", "a.b_"]),
        ({"a b": 1.0, "é": 2.0, "": 3.0}, ["", "a b", "é"]),
        ([1.0, (2.0, {"u": 3.0})], ["0", "1.0", "1.1.u"]),
        (Pair(1.0, {"right": 2.0}), ["left", "right.right"]),
        ({1: 1.0, 2: 2.0}, ["1", "2"]),
    ],
)
def test_names_of_leaves(tree: Any, names: list[str]) -> None:
    assert leaf_names(tree) == names


@given(st.dictionaries(st.text(), st.one_of(st.just(1.0), st.dictionaries(st.text(), st.just(1.0)))))
def test_no_two_leaves_have_one_name(tree: dict[str, Any]) -> None:
    names = leaf_names(tree)
    assert len(set(names)) == len(names) == len(jax.tree.leaves(tree))


def test_distinct() -> None:
    assert distinct(["a", "a", "a_", "b"], ["b"]) == ["a", "a_", "a__", "b_"]


def test_a_density_over_leaves_that_differ_in_a_sign() -> None:
    """Both are in the trace, and a bijector goes to the one that it names."""
    center = {"B+": jnp.asarray(1.0), "B-": jnp.asarray(2.0)}
    target = LogDensity(lambda p: -(p["B+"] ** 2) - p["B-"] ** 2, center, {"B-": "positive"})
    found = target.constrain({"B+": jnp.asarray(-3.0), "B-": jnp.asarray(-3.0)})
    np.testing.assert_allclose([found["B+"], found["B-"]], [-3.0, np.exp(-3.0)], rtol=1e-6)
    with pytest.raises(ValueError, match=r"a name in bijectors is 'B', expected one of B\+, B-"):
        LogDensity(lambda p: -(p["B+"] ** 2), center, {"B": "positive"})
