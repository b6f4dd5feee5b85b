"""Which values of a target a trace holds, and under which names."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from parsample.engine.reads import Pinned
from parsample.results.trace import SAMPLE_DIMS
from parsample.targets.base import Target
from parsample.targets.names import distinct, leaf_names

# What no variable of a file may be called: the dims of every draw, and what Zarr has in the folder of a group.
RESERVED = (*SAMPLE_DIMS, "zarr.json")
# Bytes of a name: one of a Zarr array is that of a folder, and names of dims are made of it.
LONGEST = 200


class Variables:
    """The values of a target by the names that they have in a trace.

    Names come back as they were given, unless no file can hold them: `a/x` becomes `a.x`, `draw` becomes `draw_`. No
    two become one. Complex values become two variables, `z.real` and `z.imag`. Arrays without numbers and random keys
    are left out.

    Args:
        target: whose values; what `constrain` returns may be nested, and is named by its paths.
        transform: what to keep of a draw; None for what `constrain` returns.

    Attributes:
        target: the target.
        parts: name as given -> the names in the trace, two of a complex value.
        left_out: names as given, of what no trace can hold.
        empty: of one draw, the arrays without numbers by names as given.
        shapes: of one draw, by names in the trace.
    """

    def __init__(self, target: Target, transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None):
        """Trace the shapes, and find the names."""
        self.target = target
        self.transform = None if transform is None else Pinned(transform)
        self.parts: dict[str, tuple[str, ...]] = {}
        draw: dict[str, Any] = jax.eval_shape(lambda: _values(target, self.transform, target.position_template()))
        known = [_leaves(values) for values in (draw, target.observed_data, target.constant_data)]
        self._add({text: leaf for values in known for text, leaf in values.items()})
        left_out = (text for values in known for text, leaf in values.items() if not _is_held(leaf))
        self.left_out = list(dict.fromkeys(left_out))
        self.empty = {text: leaf for text, leaf in known[0].items() if 0 in leaf.shape}
        self.shapes: dict[str, Any] = jax.eval_shape(self.named, draw)

    def of_draw(self, position: PyTree) -> dict[str, jax.Array]:
        """Return the variables of one draw. It can be compiled."""
        return self.naming(self.target, position)

    @property
    def naming(self) -> "Naming":
        """The names alone, for what is compiled for one target and serves another."""
        return Naming(tuple(self.parts.items()), self.transform)

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values under their names in the trace.

        Args:
            values: of one draw, of many, or data.
        """
        self._add(_leaves(values))
        return _named(values, self.parts)

    def given(self, draws: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return variables of a trace under the names that they were given, each read when it is asked for.

        Arrays without numbers, which are in no trace, are there again.
        """
        return _Given(self.parts, self.empty, draws)

    @property
    def renamed(self) -> dict[str, list[str]]:
        """The names that are others in the trace, as given -> in the trace, two of a complex value."""
        return {given: list(names) for given, names in self.parts.items() if names != (given,)}

    def _add(self, leaves: Mapping[str, Any]) -> None:
        """Find names for those that have none. Those that can stay as they are come first."""
        new = {text: leaf for text, leaf in leaves.items() if text not in self.parts and _is_held(leaf)}
        taken = {name for names in self.parts.values() for name in names}
        texts = {text: _part_names(text, leaf) for text, leaf in new.items()}
        stay = {text for text, names in texts.items() if names == (storable_name(text),) == (text,)} - taken
        taken |= {*RESERVED, *stay}
        for text, names in texts.items():
            found = (text,) if text in stay else tuple(distinct(map(storable_name, names), taken))
            taken |= set(found)
            self.parts[text] = found


class Naming(NamedTuple):
    """How the values of a draw are named.

    Attributes:
        parts: names as given, each with those in the trace.
        transform: what to keep of a draw; None for what the target's `constrain` returns.
    """

    parts: tuple[tuple[str, tuple[str, ...]], ...]
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None

    def __call__(self, target: Target, position: PyTree) -> dict[str, jax.Array]:
        """Return the variables of one draw of a target."""
        # A model or a transform may return plain numbers.
        return jax.tree.map(jnp.asarray, _named(_values(target, self.transform, position), dict(self.parts)))


def _values(target: Target, transform: Callable | None, position: PyTree) -> dict[str, Any]:
    draw = target.constrain(position)
    return draw if transform is None else transform(draw)


def _named(values: Mapping[str, Any], parts: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text, leaf in _leaves(values).items():
        if _is_held(leaf):
            found |= dict(zip(parts[text], _stored(leaf), strict=True))
    return found


class _Given(Mapping[str, Any]):
    """Variables of a trace under the names that they were given."""

    def __init__(self, parts: Mapping[str, tuple[str, ...]], empty: Mapping[str, Any], draws: Mapping[str, Any]):
        self.draws, self.empty = draws, empty
        self.parts = {given: names for given, names in parts.items() if all(name in draws for name in names)}

    def __getitem__(self, name: str) -> Any:
        if name in self.empty:
            lead = np.shape(self.draws[next(iter(self.draws))])[: len(SAMPLE_DIMS)]
            return np.zeros((*lead, *self.empty[name].shape), self.empty[name].dtype)
        values = [self.draws[part] for part in self.parts[name]]
        return values[0] if len(values) == 1 else values[0] + 1j * values[1]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.parts, *self.empty))

    def __len__(self) -> int:
        return len(self.parts) + len(self.empty)


def storable_name(name: str) -> str:
    """Return a name that netCDF and Zarr can hold, the same where they can hold it."""
    text = name.encode("utf-8", "replace").decode()
    text = re.sub(r"[/\\]", ".", text).replace("\0", "_")
    text = text.encode()[:LONGEST].decode(errors="ignore")
    if text in RESERVED:
        return f"{text}_"
    return text if text.strip(".") else f"{text}_"


def _leaves(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of nested values by their paths."""
    return dict(zip(leaf_names(dict(values)), map(_as_array, jax.tree.leaves(dict(values))), strict=True))


def _as_array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _is_held(leaf: Any) -> bool:
    """Say whether a trace can hold an array: it has numbers, and they are none of a random key."""
    return 0 not in leaf.shape and (jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == bool)


def _part_names(text: str, leaf: Any) -> tuple[str, ...]:
    return (f"{text}.real", f"{text}.imag") if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else (text,)


def _stored(leaf: Any) -> tuple[Any, ...]:
    """Return an array in the types that files know: complex numbers as two, short ones widened, which loses nothing."""
    dtype = leaf.dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return leaf.real, leaf.imag
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
        return (leaf.astype(np.float32),)
    if jnp.issubdtype(dtype, jnp.integer) and jnp.iinfo(dtype).bits < 8:
        return (leaf.astype(np.uint8 if jnp.issubdtype(dtype, jnp.unsignedinteger) else np.int8),)
    return (leaf,)
