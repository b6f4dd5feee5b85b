"""What the tests of targets share: every target with its defaults, and quadrature."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from parsample.targets import TARGETS, Target


def build(name: str, folder: Path) -> Target:
    """The target with its defaults; those that need a file get a small one of the same form."""
    if name == "german_credit":
        return TARGETS[name](data=write_credit_file(folder / "german.data-numeric"))
    if name in SMALL_DATA:
        return TARGETS[name](data=write_json(folder / f"{name}.json", small_data(name)))
    return TARGETS[name]()


def write_credit_file(path: Path, rows: int = 60) -> Path:
    rng = np.random.default_rng(3)
    table = np.column_stack([rng.integers(1, 70, (rows, 24)), rng.integers(1, 3, rows)])
    path.write_text("".join(" ".join(f"{number:4d}" for number in row) + " \n" for row in table))
    return path


# Data of the form that posteriordb has, given a generator.
SMALL_DATA: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "kidscore_interaction": lambda rng: {
        "N": 30,
        "kid_score": rng.integers(40, 130, 30),
        "mom_hs": rng.integers(0, 2, 30),
        "mom_iq": 100 + 15 * rng.standard_normal(30),
    },
    "blr": lambda rng: {"N": 20, "D": 3, "X": rng.standard_normal((20, 3)), "y": rng.standard_normal(20)},
    "autoregressive": lambda rng: {"K": 2, "T": 25, "y": rng.standard_normal(25)},
    "garch": lambda rng: {"T": 30, "y": 1 + 2 * rng.standard_normal(30), "sigma1": 0.5},
    "gp_regression": lambda rng: {"N": 7, "x": np.arange(7) - 3, "y": 2 * rng.standard_normal(7)},
    "lotka_volterra": lambda rng: {
        "N": 5,
        "ts": [1, 2, 3, 4.5, 5],
        "y_init": [12, 8],
        "y": np.exp(2 + 0.5 * rng.standard_normal((5, 2))),
    },
}


def small_data(name: str) -> dict[str, Any]:
    """Data for a target whose own cannot ship, as lists and numbers."""
    entries = SMALL_DATA[name](np.random.default_rng(4))
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in entries.items()}


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def log_density(target: Target, **position: Any) -> jax.Array:
    """The log density at a position, compiled as a whole, which is quicker than its operations one by one."""
    return jax.jit(lambda p: target.logdensity(p))({key: jnp.asarray(value) for key, value in position.items()})


def log_jacobian(target: Target, position: dict[str, Any]) -> float:
    """Logarithm of the volume that `constrain` makes of a small volume, for as many variables as coordinates."""
    vector, unravel = ravel_pytree({key: jnp.asarray(value) for key, value in position.items()})
    jacobian = jax.jit(jax.jacfwd(lambda x: ravel_pytree(target.constrain(unravel(x)))[0]))(vector)
    return float(np.linalg.slogdet(np.asarray(jacobian))[1])


def random_positions(target: Target, rng: np.random.Generator, number: int = 3) -> list[dict[str, Any]]:
    """Positions with coordinates uniform on (-2, 2)."""
    template = target.position_template()
    return [
        {key: jnp.asarray(rng.uniform(-2, 2, zeros.shape)) for key, zeros in template.items()} for _ in range(number)
    ]


def quadrature(density_fn: Callable, *axes: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, means and standard deviations of exp(density_fn) on a grid, by the trapezoidal rule."""
    weights = np.ones(())
    for axis in axes:
        width = np.gradient(axis)
        width[[0, -1]] /= 2
        weights = np.multiply.outer(weights, width)
    points = np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=1)
    density = np.exp(np.asarray(jax.jit(jax.vmap(density_fn))(jnp.asarray(points)))) * weights.ravel()
    mass = density.sum()
    mean = density @ points / mass
    return mass, mean, np.sqrt(density @ (points - mean) ** 2 / mass)
