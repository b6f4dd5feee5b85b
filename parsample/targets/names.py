"""Names of the leaves of a pytree: one for each, no two the same, and as given where that can be."""

from collections.abc import Iterable
from typing import Any

import jax
from jaxtyping import PyTree


def leaf_names(tree: PyTree) -> list[str]:
    """Name the leaves of a pytree by their paths.

    {"a": {"b": ...}} gives `a.b`, {"B+": ...} gives `B+`, a list numbers from 0, and a bare array is `x`.

    Args:
        tree: a pytree of anything.

    Returns:
        A name a leaf, in the order of `jax.tree.leaves`. Where two paths have the same one, {"a": {"b": ...}, "a.b":
        ...} say, underscores follow the later ones.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return distinct(".".join(map(_word, path)) if path else "x" for path in paths)


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return names of which none is another or among those that are taken: underscores follow the later ones."""
    found, known = [], set(taken)
    for given in names:
        name = given
        while name in known:
            name += "_"
        known.add(name)
        found.append(name)
    return found


def _word(entry: Any) -> str:
    """Return the text of one entry of a path: the key, number or attribute that it goes by."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
