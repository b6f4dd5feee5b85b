"""What JAX cannot trace of a user's function, said in a sentence."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax

from parsample.engine.reads import LIBRARIES

# JAX's error -> what the function does, and what to do instead; of classes and their bases the first that fits.
CAUSES: dict[type[Exception], tuple[str, str]] = {
    jax.errors.TracerArrayConversionError: (
        "hands a value that JAX traces to NumPy, SciPy, pandas or another library, which needs numbers",
        "write it with jax.numpy and jax.scipy",
    ),
    jax.errors.TracerBoolConversionError: (
        "branches on a value that JAX traces (`if`, `while`, `and`, `or`)",
        "choose with jnp.where or jax.lax.cond",
    ),
    jax.errors.NonConcreteBooleanIndexError: (
        "selects by booleans that JAX traces, so that the size of the result depends on them",
        "use jnp.where, whose result has one size",
    ),
    jax.errors.TracerIntegerConversionError: (
        "takes a value that JAX traces for an index or a size in Python",
        "index arrays of JAX, and take sizes from shapes",
    ),
    jax.errors.ConcretizationTypeError: (
        "makes a number of Python (`float`, `int`, `.item()`) or a size of a value that JAX traces",
        "leave it an array, and take sizes from shapes",
    ),
}
NOT_A_USERS = (*LIBRARIES, str(Path(__file__).parents[1]), "<frozen")


@contextlib.contextmanager
def traceable(what: str, otherwise: str = "") -> Iterator[None]:
    """Trace a user's function inside; what JAX cannot trace becomes a ValueError that says where, and what to do.

    Args:
        what: the function, as the subject of the sentence.
        otherwise: what else can be done, after "or".
    """
    try:
        yield
    except tuple(CAUSES) as error:
        said = untraceable(error, what, otherwise)
        assert said is not None
        raise said from error


def untraceable(error: BaseException | None, what: str, otherwise: str = "") -> ValueError | None:
    """Return the error of `traceable` for one of JAX's; None for any other."""
    for kind, (does, remedy) in CAUSES.items():
        if isinstance(error, kind):
            otherwise = f", or {otherwise}" if otherwise else ""
            return ValueError(f"{what} {does}{_place(error)}; {remedy}{otherwise}.")
    return None


def first_line(error: BaseException | None) -> str:
    """Return what an error says, in its first line, to stand in a sentence."""
    return (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")


def _place(error: BaseException) -> str:
    """Return the line of the user's code where it happened, after a comma; nothing where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [row for row in frames if row.lineno and not row.filename.startswith(NOT_A_USERS)]
    return f", in line {own[-1].lineno} of {Path(own[-1].filename).name}" if own else ""
