"""How a chain settles: the largest residual after each iteration, for every method, on one MALA chain.

    python examples/settling.py --output settling.png

A posterior of 31 coefficients (breast cancer) is warmed up, then one chain is evaluated from the same start by each
method over the full window. Ends in a figure and a table.
"""

import argparse
from pathlib import Path

import jax
import matplotlib.figure
import numpy as np
from rich.console import Console
from rich.table import Table

import parsample as ps
from parsample.warmup.adapt import adapt
from parsample.warmup.starts import starts


def settle(num_steps: int, num_warmup: int) -> dict[str, tuple[ps.Solution, float]]:
    """Return for each parallel method its solution and the largest difference from the sequential loop."""
    target = ps.targets.BreastCancer()
    keys = jax.random.split(jax.random.key(0), 4)
    adaptation = adapt(target, ps.samplers.MALA, starts(target, keys), keys, num_warmup)
    # A quarter of the step size that mixes best: the chain is easier to predict, and the methods easier to tell apart.
    mala = ps.samplers.MALA(adaptation.density, adaptation.step_size / 4)
    start = adaptation.density.inverse(adaptation.last[0])
    inputs = mala.draw_inputs(jax.random.key(1), num_steps, start)
    loop = ps.evaluate_sequential(mala.transition, start, inputs)
    found = {}
    for name in ps.METHODS:
        if name != "sequential":
            solution = ps.evaluate(mala.transition, start, inputs, method=name, history=True)
            found[name] = solution, float(np.max(np.abs(solution.states - loop.states)))
    return found


def draw(found: dict[str, tuple[ps.Solution, float]], path: Path) -> None:
    """Plot the largest residual in the window against the iteration."""
    figure = matplotlib.figure.Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, (solution, _) in found.items():
        iterations = int(solution.iterations)
        assert solution.history is not None
        residual = np.asarray(solution.history.largest_residual)[:iterations]
        axes.loglog(np.arange(1, iterations + 1), np.maximum(residual, 1e-7), label=f"{name} ({iterations})", lw=1.6)
    axes.set_xlabel("iteration")
    axes.set_ylabel("largest residual left (posterior sd)")
    axes.set_title("One MALA chain on the breast-cancer posterior, full window", loc="left", fontsize=11)
    axes.legend(title="method (iterations)", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=512)
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("settling.png"))
    options = parser.parse_args(arguments)
    found = settle(options.steps, options.warmup)
    table = Table("method", "iterations", "largest residual", "largest difference from the loop", box=None)
    for name, (solution, difference) in found.items():
        table.add_row(name, str(int(solution.iterations)), f"{float(solution.residual.max()):.1g}", f"{difference:.1g}")
    Console().print(table)
    draw(found, options.output)
    print(f"figure: {options.output}")


if __name__ == "__main__":
    main()
