"""Observers of chaotic flows against the flows: the Lyapunov exponent says beforehand which ones Newton can solve.

    python examples/chaotic_observers.py --output chaotic_observers.png

A flow is integrated by Euler steps of 0.01. Its observer is the same flow, started elsewhere, which is told some
coordinates of the true trajectory before every step. The exponents are printed before anything is solved in parallel.
Ends in a figure and a table. Published numbers: Gonzalez et al. 2025, "Predictability enables parallelization of
nonlinear state space models", table 1 (T=30,000); their observer of the Roessler flow is another one, which is pulled
towards a measured combination of coordinates.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from rich.console import Console
from rich.table import Table

import parsample as ps

STEP = 0.01


class Flow(NamedTuple):
    """A flow, where it starts, which coordinates its observer is told, and published iterations of both."""

    slope: Callable[[jax.Array], jax.Array]
    start: tuple[float, float, float]
    told: tuple[int, ...]
    published: tuple[int, int]


def abc(s: jax.Array) -> jax.Array:
    x, y, z = s
    a, b = 3**0.5, 2**0.5
    return jnp.stack([a * jnp.sin(z) + jnp.cos(y), b * jnp.sin(x) + a * jnp.cos(z), jnp.sin(y) + b * jnp.cos(x)])


def chua(s: jax.Array) -> jax.Array:
    x, y, z = s
    current = -0.71429 * x + 0.5 * (-1.142857 + 0.71429) * (jnp.abs(x + 1) - jnp.abs(x - 1))
    return jnp.stack([15.6 * (y - x - current), x - y + z, -28 * y])


def lorenz(s: jax.Array) -> jax.Array:
    x, y, z = s
    return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


def roessler(s: jax.Array) -> jax.Array:
    x, y, z = s
    return jnp.stack([-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)])


def thomas(s: jax.Array) -> jax.Array:
    return -1.85 * s + 10 * jnp.sin(jnp.roll(s, -1))


def vallis(s: jax.Array) -> jax.Array:
    x, y, z = s
    return jnp.stack([102 * y - 3 * x, x * z - y, 1 - z - x * y])


FLOWS = {
    "ABC": Flow(abc, (-0.78, -0.63, -0.18), (0, 2), (4243, 3)),
    "Chua": Flow(chua, (1.13, -0.11, -0.78), (1,), (697, 14)),
    "Lorenz": Flow(lorenz, (-9.8, -15.0, 20.5), (1,), (30000, 3)),
    "Roessler": Flow(roessler, (6.5, 0.48, 0.34), (0, 1), (29288, 7)),
    "Thomas": Flow(thomas, (2.2, 2.36, 3.22), (1,), (12747, 7)),
    "Vallis": Flow(vallis, (-7.0, 0.023, -0.17), (1,), (30000, 3)),
}


def recursions(flow: Flow, steps: int) -> dict[str, tuple[Callable, jax.Array, jax.Array]]:
    """Return the flow and its observer as transition, initial state and inputs."""
    start = jnp.array(flow.start)
    told = jnp.isin(jnp.arange(3), jnp.array(flow.told, int))

    def follow(state: jax.Array, input: jax.Array) -> jax.Array:
        return state + STEP * flow.slope(state)

    def observe(state: jax.Array, truth: jax.Array) -> jax.Array:
        state = jnp.where(told, truth, state)
        return state + STEP * flow.slope(state)

    truth = ps.evaluate_sequential(follow, start, jnp.arange(steps)).states
    before = jnp.concatenate([start[None], truth[:-1]])
    elsewhere = start + jax.random.normal(jax.random.key(0), (3,))
    return {"flow": (follow, start, jnp.arange(steps)), "observer": (observe, elsewhere, before)}


def solve(problem: tuple[Callable, jax.Array, jax.Array], exponent: float, limit: int) -> dict[str, Any]:
    """Solve by Newton, and compare with the loop."""
    solution = ps.evaluate(
        *problem,
        method="newton",
        atol=1e-8,
        rtol=1e-8,
        max_iterations=limit,
        conditioning=ps.Conditioning(projection=False),
        throw=False,
    )
    loop = ps.evaluate_sequential(*problem).states
    return {
        "exponent": exponent,
        "iterations": int(solution.iterations),
        "converged": bool(solution.converged),
        "residual": float(np.nanmax(np.asarray(solution.residual))),
        "difference": float(jnp.abs(solution.states - loop).max()),
    }


def draw(found: dict[tuple[str, str], dict[str, Any]], limit: int, path: Path) -> None:
    """Plot the iterations of each flow and its observer as bars, with the exponents beside them."""
    figure = matplotlib.figure.Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(FLOWS):
        for kind, colour, shift in (("flow", "C3", -0.2), ("observer", "C0", 0.2)):
            result = found[name, kind]
            label = kind if row == 0 else None
            axes.barh(row + shift, result["iterations"], 0.36, color=colour, label=label)
            text = f"{'' if result['converged'] else 'stopped; '}exponent {result['exponent'] / STEP + 0.0:.2f}"
            axes.annotate(text, (result["iterations"], row + shift), (4, 0), textcoords="offset points", va="center",
                          fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(1, 12 * limit)
    axes.set_yticks(range(len(FLOWS)), list(FLOWS))
    axes.invert_yaxis()
    axes.set_xlabel("Newton iterations (exponents per unit of time)")
    axes.set_title("Chaotic flows and their observers", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> Table:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--max-iterations", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("chaotic_observers.png"))
    options = parser.parse_args(arguments)
    with jax.enable_x64(True):
        problems = {
            (name, kind): problem
            for name, flow in FLOWS.items()
            for kind, problem in recursions(flow, options.steps).items()
        }
        exponents = {key: float(ps.lyapunov_exponent(*problem).exponent) for key, problem in problems.items()}
        print("Exponents per unit of time, before solving; below 0 is predictable:")
        for (name, kind), exponent in exponents.items():
            print(f"  {name} {kind}: {exponent / STEP:.3f}")
        found = {key: solve(problem, exponents[key], options.max_iterations) for key, problem in problems.items()}
    table = Table(
        "", "", "exponent", "iterations", "published", "largest residual", "difference from the loop", box=None
    )
    for (name, kind), row in found.items():
        more = "" if row["converged"] else "> "
        published = str(FLOWS[name].published[kind == "observer"])
        numbers = f"{row['residual']:.1g}", f"{row['difference']:.1g}"
        table.add_row(name, kind, f"{row['exponent'] / STEP:.3f}", f"{more}{row['iterations']}", published, *numbers)
    Console(width=100).print(table)
    draw(found, options.max_iterations, options.output)
    print(f"figure: {options.output}")
    return table


if __name__ == "__main__":
    main()
