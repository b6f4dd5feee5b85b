"""The methods, one a file. A method is a choice of the matrix A[t]; a new one is a file and a row in `METHODS`."""

from parsample.engine.methods.base import Method
from parsample.engine.methods.jacobi import Jacobi
from parsample.engine.methods.newton import Newton
from parsample.engine.methods.picard import Picard
from parsample.engine.methods.quasi_newton import QuasiNewton
from parsample.engine.methods.scaled_identity import ScaledIdentity
from parsample.engine.methods.sequential import Sequential
from parsample.engine.names import unknown

METHODS: dict[str, type[Method]] = {
    "sequential": Sequential,
    "jacobi": Jacobi,
    "picard": Picard,
    "scaled_identity": ScaledIdentity,
    "quasi_newton": QuasiNewton,
    "newton": Newton,
}

__all__ = ["METHODS", "Jacobi", "Method", "Newton", "Picard", "QuasiNewton", "ScaledIdentity", "Sequential", "find"]


def find(method: str | Method) -> Method:
    """Return a method given as an instance, or by its name in `METHODS` with its defaults.

    Raises:
        ValueError: no method has that name; the nearest one is suggested.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]()
    raise unknown("method", method, METHODS, "a Method instance")
