"""The methods, one a file. Most are a choice of the matrix A[t]; a new one is a file and a row in `METHODS`."""

import equinox as eqx

from parsample.engine.methods.anderson import Anderson
from parsample.engine.methods.base import LinearMethod, Method, PreparedMethod
from parsample.engine.methods.block_quasi_newton import BlockQuasiNewton
from parsample.engine.methods.elk import ELK, QuasiELK
from parsample.engine.methods.jacobi import Jacobi
from parsample.engine.methods.lagged import Lagged
from parsample.engine.methods.lifted_newton import LiftedNewton, LiftedQuasiNewton
from parsample.engine.methods.merit_descent import MeritDescent
from parsample.engine.methods.newton import Newton
from parsample.engine.methods.parareal import Parareal
from parsample.engine.methods.permutation import Permutation
from parsample.engine.methods.picard import Picard
from parsample.engine.methods.quasi_newton import QuasiNewton
from parsample.engine.methods.scaled_identity import ScaledIdentity
from parsample.engine.methods.secant import Secant
from parsample.engine.methods.sequential import Sequential
from parsample.engine.methods.subspace_newton import SubspaceNewton
from parsample.engine.methods.surrogate import Surrogate
from parsample.engine.names import unknown

METHODS: dict[str, type[Method]] = {
    "sequential": Sequential,
    "jacobi": Jacobi,
    "picard": Picard,
    "scaled_identity": ScaledIdentity,
    "surrogate": Surrogate,
    "secant": Secant,
    "quasi_newton": QuasiNewton,
    "block_quasi_newton": BlockQuasiNewton,
    "newton": Newton,
    "lifted_newton": LiftedNewton,
    "lifted_quasi_newton": LiftedQuasiNewton,
    "subspace_newton": SubspaceNewton,
    "permutation": Permutation,
    "elk": ELK,
    "quasi_elk": QuasiELK,
    "anderson": Anderson,
    "parareal": Parareal,
    "lagged": Lagged,
    "merit_descent": MeritDescent,
}

# What papers call some of them (Lim et al. 2024; Gonzalez et al. 2024; Shih et al. 2023).
ALIASES = {"deer": "newton", "quasi_deer": "quasi_newton", "paradigms": "picard"}

__all__ = [
    "ALIASES",
    "ELK",
    "METHODS",
    "Anderson",
    "BlockQuasiNewton",
    "Jacobi",
    "Lagged",
    "LiftedNewton",
    "LiftedQuasiNewton",
    "LinearMethod",
    "MeritDescent",
    "Method",
    "Newton",
    "Parareal",
    "Permutation",
    "Picard",
    "PreparedMethod",
    "QuasiELK",
    "QuasiNewton",
    "ScaledIdentity",
    "Secant",
    "Sequential",
    "SubspaceNewton",
    "Surrogate",
    "find",
    "name_of",
]


def name_of(method: Method) -> str:
    """Return the name of a method in the table, or "" for one with options."""
    return next((name for name, kind in METHODS.items() if bool(eqx.tree_equal(kind(), method))), "")


def find(method: str | Method, or_auto: bool = False) -> Method:
    """Return a method given as an instance, or by its name in `METHODS` or `ALIASES` with its defaults.

    Args:
        method: what was given.
        or_auto: whether it might have been "auto", for the sentence that refuses it.

    Raises:
        ValueError: no method has that name; the nearest one is suggested.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str) and (name := ALIASES.get(method, method)) in METHODS:
        return METHODS[name]()
    raise unknown("method", method, ["auto", *METHODS] if or_auto else METHODS, "a Method instance")
