"""A log density with holes: what a compiled step asks of a model that runs outside, and where the answers go.

A sampler's step is traced with a density that is nothing but a mark. The step's program is then run with a function in
the place of every mark: it is told the point, and returns what stands there so far.
"""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float, PyTree

# The name of the mark in a traced program.
MARK = "_parsample_hole"
# Loops and branches whose course depends on values: how often they ask is not known in advance.
OPEN_ENDED = ("while", "cond")

NO_GRADIENT = (
    "it takes gradients of the model, which has none; give gradient=True where simulate returns one, "
    "gradient='finite_differences' to have it made of further runs, or take a sampler that needs none, such as 'rwm'"
)

# What stands in a hole, from its point: the log density, and its gradient where there is one.
Ask = Callable[[Array], tuple[Array, Array]]


def _parsample_hole(point: Float[Array, " dim"]) -> tuple[Float[Array, ""], Float[Array, " dim"]]:
    # Both depend on the point, so that of a batch of points there is a batch of them.
    return jnp.sum(point), point


_mark = jax.jit(_parsample_hole)


@jax.custom_vjp
def _with_gradient(point: Float[Array, " dim"]) -> Float[Array, ""]:
    return _mark(point)[0]


_with_gradient.defvjp(lambda point: _mark(point), lambda gradient, tangent: (tangent * gradient,))


@jax.custom_vjp
def _without(point: Float[Array, " dim"]) -> Float[Array, ""]:
    return _mark(point)[0]


def _refuse(point: Float[Array, " dim"]) -> tuple[Any, Any]:
    raise ValueError(NO_GRADIENT)


_without.defvjp(_refuse, _refuse)


class Holes(eqx.Module):
    """A log density of flat vectors that is a mark in a traced program, and its gradient with it.

    Attributes:
        has_gradient: whether there is one; otherwise a ValueError says so where it is taken.
    """

    has_gradient: bool = eqx.field(static=True, default=True)

    def __call__(self, point: Float[Array, " dim"]) -> Float[Array, ""]:
        """Return the mark."""
        return _with_gradient(point) if self.has_gradient else _without(point)


def fill(function: Callable, *args: PyTree, ask: Ask) -> PyTree:
    """Return what a function of pytrees of arrays returns, with `ask` in the place of every mark, in their order.

    Loops of known length around a mark are unrolled.

    Raises:
        ValueError: a mark stands in a loop or a branch of which it depends on values how often it is passed.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    found = _run(program.jaxpr, program.consts, jax.tree.leaves(args), ask)
    return jax.tree.unflatten(jax.tree.structure(shapes), found)


def find_holes(function: Callable, *args: PyTree) -> list[jax.ShapeDtypeStruct]:
    """Return the form of the point at every mark that a function passes."""
    found = []

    def ask(point: Array) -> tuple[Array, Array]:
        found.append(jax.ShapeDtypeStruct(point.shape, point.dtype))
        return _parsample_hole(point)

    jax.eval_shape(lambda *given: fill(function, *given, ask=ask), *args)
    return found


def _run(jaxpr: Any, consts: list[Any], args: list[Any], ask: Ask) -> list[Any]:
    known: dict[Any, Any] = {}
    read = lambda atom: atom.val if isinstance(atom, core.Literal) else known[atom]  # noqa: E731
    known.update(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for equation in jaxpr.eqns:
        given = [read(atom) for atom in equation.invars]
        if equation.params.get("name") == MARK:
            found = _ask_all(ask, *given)
        elif not _has_mark(equation):
            found = _alone(jaxpr, equation)(*(read(atom) for atom in equation.invars if _is_named(atom)))
        elif equation.primitive.name == "scan":
            found = _unroll(equation.params, given, ask)
        elif equation.primitive.name in OPEN_ENDED:
            raise ValueError(
                f"this sampler evaluates its log density inside of a `{equation.primitive.name}`, so that nobody knows "
                "in advance how often; a model outside JAX needs a sampler with as many evaluations in every step, "
                "such as 'rwm', 'mala' or 'hmc'."
            )
        else:
            inner = next(_programs(equation.params))
            found = _run(inner.jaxpr, inner.consts, given, ask)
        known.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _ask_all(ask: Ask, points: Array) -> list[Array]:
    """Ask at a point, or at each of a batch of points."""
    if points.ndim == 1:
        return list(ask(points))
    answers = [_ask_all(ask, point) for point in points]
    return [jnp.stack(column) for column in zip(*answers, strict=True)]


def _is_named(atom: Any) -> bool:
    return not isinstance(atom, core.Literal)


def _alone(jaxpr: Any, equation: Any) -> Callable:
    """Return one equation of a program as a function of what it takes, but for literals."""
    names = [atom for atom in equation.invars if _is_named(atom)]
    alone = core.Jaxpr([], names, equation.outvars, [equation], equation.effects, jaxpr.debug_info)
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))


def _unroll(params: dict[str, Any], given: list[Any], ask: Ask) -> list[Any]:
    """Run a scan turn by turn."""
    body, length = params["jaxpr"], params["length"]
    # From JAX 0.11 or 0.12 on the two are parts of a tree.
    tree = params.get("ft_in")
    counts = [params["num_consts"], params["num_carry"]] if tree is None else [len(part.vals) for part in tree.unpack()]
    begins, ends = counts[0], counts[0] + counts[1]
    consts, carry, rows = given[:begins], given[begins:ends], given[ends:]
    turns: list[list[Any]] = []
    for turn in reversed(range(length)) if params["reverse"] else range(length):
        found = _run(body.jaxpr, body.consts, [*consts, *carry, *(row[turn] for row in rows)], ask)
        carry = found[: len(carry)]
        turns.append(found[len(carry) :])
    if params["reverse"]:
        turns.reverse()
    return [*carry, *(jnp.stack(column) for column in zip(*turns, strict=True))]


def _programs(params: dict[str, Any]) -> Iterator[Any]:
    """Return the programs inside an equation, closed."""
    for value in params.values():
        for row in value if isinstance(value, tuple | list) else [value]:
            if isinstance(row, core.ClosedJaxpr):
                yield row
            elif isinstance(row, core.Jaxpr):
                yield core.ClosedJaxpr(row, [])


def _has_mark(equation: Any) -> bool:
    return any(
        inner.params.get("name") == MARK or _has_mark(inner)
        for program in _programs(equation.params)
        for inner in program.jaxpr.eqns
    )
