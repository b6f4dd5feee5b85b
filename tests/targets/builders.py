"""What the tests of targets share: every target with its defaults, and quadrature."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parsample.targets import TARGETS, Target


def build(name: str, folder: Path) -> Target:
    """The target with its defaults; the one that needs a file gets a small one of the same form."""
    if name != "german_credit":
        return TARGETS[name]()
    return TARGETS[name](data=write_credit_file(folder / "german.data-numeric"))


def write_credit_file(path: Path, rows: int = 60) -> Path:
    rng = np.random.default_rng(3)
    table = np.column_stack([rng.integers(1, 70, (rows, 24)), rng.integers(1, 3, rows)])
    path.write_text("".join(" ".join(f"{number:4d}" for number in row) + " \n" for row in table))
    return path


def log_density(target: Target, **position: Any) -> jax.Array:
    """The log density at a position, compiled as a whole, which is quicker than its operations one by one."""
    return jax.jit(lambda p: target.logdensity(p))({key: jnp.asarray(value) for key, value in position.items()})


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
