"""Whether a program computes with its data before they meet what varies, by what is written in it."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core

from parsample.engine.host import programs_in

# What moves numbers, and computes nothing.
MOVES = frozenset(
    (
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "reshape",
        "rev",
        "slice",
        "squeeze",
        "transpose",
    )
)
# Where a function is called as it is: its arguments are the operands.
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
# What a number of a program comes from: nothing but the program, the data, or something that varies.
CONSTANT, GIVEN, VARIES = range(3)


class Computes(Exception):
    """The program computes with data alone, or it cannot be told."""


def computes_with_data_alone(program: core.ClosedJaxpr, kinds: Sequence[int]) -> bool:
    """Say whether data are computed with before they meet something that varies, or where that cannot be told.

    Asking whether a number is finite, or equals a certain one, is no computation.

    Args:
        program: that JAX made of a function.
        kinds: of its arguments, `CONSTANT`, `GIVEN` or `VARIES`.
    """
    try:
        kinds_of_results(program.jaxpr, kinds)
    except Computes:
        return True
    return False


def kinds_of_results(program: core.Jaxpr, kinds: Sequence[int]) -> list[int]:
    """Return the kinds of what a program returns, from those of its arguments.

    Raises:
        Computes: data are computed with before they meet something that varies, or it cannot be told.
    """
    known: dict[Any, int] = dict(zip(program.invars, kinds, strict=True))

    def kind(value: Any) -> int:
        return CONSTANT if isinstance(value, core.Literal) else known.get(value, CONSTANT)

    for equation in program.eqns:
        given = [kind(value) for value in equation.invars]
        name = equation.primitive.name
        if name in CALLS:
            made = kinds_of_results(equation.params[CALLS[name]].jaxpr, given)
        elif GIVEN in given and any(True for _ in programs_in(equation)):
            raise Computes  # a loop or a branch, which may
        elif GIVEN in given and VARIES not in given:
            is_asked = _is_asked(equation)
            if name not in MOVES and not is_asked:
                raise Computes
            made = [CONSTANT if is_asked else GIVEN] * len(equation.outvars)
        else:
            made = [max(given, default=CONSTANT)] * len(equation.outvars)
        known.update(zip(equation.outvars, made, strict=True))
    return [kind(value) for value in program.outvars]


def _is_asked(equation: Any) -> bool:
    """Say whether an equation asks whether numbers are numbers, or a certain one: with fewer digits they become it."""
    if equation.primitive.name not in ("eq", "ne"):
        return False
    one, other = equation.invars
    return one is other or isinstance(other, core.Literal)
