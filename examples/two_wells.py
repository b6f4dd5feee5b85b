"""Langevin dynamics in two wells: Newton iterations and the Lyapunov exponent, chain by chain.

    python examples/two_wells.py --output two_wells.png

Unadjusted Langevin steps of 0.01 from the saddle between the wells, T=10,000, one chain a seed. Near the barrier
neighbouring trajectories part, in the wells they meet again; on the whole the chain is predictable. Published: at most
about 35 Newton iterations over 20 seeds, exponent -0.0145 (Gonzalez et al. 2025, "Predictability enables
parallelization of nonlinear state space models"). Ends in a figure and a table.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from rich.console import Console
from rich.table import Table

import parsample as ps

STEP_SIZE = 0.01
METHODS: dict[str, dict[str, Any]] = {
    "Newton": {"method": "newton"},
    "Newton, not projected": {"method": "newton", "projection": False},
    "the same from the Gaussian": {"method": "newton", "projection": False},
    "quasi-Newton": {"method": ps.methods.QuasiNewton("exact")},
}


def surrogate_chain(target: ps.targets.TwoWells, start: Any, inputs: Any) -> Any:
    """Run the chain with the same noise on the Gaussian with the moments of the target: a free guess."""
    mean, deviation = target.moments()["x"]

    def step(state: Any, input: Any) -> Any:
        drift = STEP_SIZE * (mean - state["x"]) / deviation**2
        return {"x": state["x"] + drift + jnp.sqrt(2 * STEP_SIZE) * input.noise}

    return ps.evaluate_sequential(step, start, inputs).states


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("two_wells.png"))
    options = parser.parse_args(arguments)
    target = ps.targets.TwoWells()
    sampler = ps.samplers.ULA(target.logdensity, STEP_SIZE)
    start = {"x": jnp.zeros(2)}
    exponents: list[float] = []
    iterations: dict[str, list[float]] = {name: [] for name in METHODS}
    residual = difference = 0.0
    for seed in range(options.seeds):
        inputs = sampler.draw_inputs(jax.random.key(seed), options.steps, start)
        exponents.append(float(ps.lyapunov_exponent(sampler.transition, start, inputs).exponent))
        loop = ps.evaluate_sequential(sampler.transition, start, inputs).states["x"]
        for name, choice in METHODS.items():
            guess = surrogate_chain(target, start, inputs) if "Gaussian" in name else None
            solution = ps.evaluate(
                sampler.transition, start, inputs, **choice, guess=guess, max_iterations=100, throw=False
            )
            iterations[name].append(int(solution.iterations) if bool(solution.converged) else np.inf)
            if bool(solution.converged):
                residual = max(residual, float(solution.residual.max()))
                difference = max(difference, float(jnp.abs(solution.states["x"] - loop).max()))
    mean, error = np.mean(exponents), np.std(exponents) / np.sqrt(len(exponents))
    print(f"exponent per step {mean:.4f} ± {error:.4f} (published -0.0145)")
    table = Table("method", "iterations: least", "median", "most", "published", box=None)
    for name, counts in iterations.items():
        table.add_row(name, *(f"{number:g}" for number in (min(counts), np.median(counts), max(counts))), "<= about 35")
    Console().print(table)
    print(f"largest residual {residual:.1g}, largest difference from the loop {difference:.1g}")
    figure = matplotlib.figure.Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (name, counts), marker in zip(iterations.items(), "osdx", strict=True):
        axes.plot(exponents, counts, marker, label=name, ms=6, alpha=0.8)
    axes.set_xlabel("largest Lyapunov exponent per step")
    axes.set_ylabel("iterations")
    axes.set_ylim(bottom=0)
    axes.set_title(f"Langevin dynamics in two wells, T={options.steps:,}, one point a seed", loc="left", fontsize=11)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.output, dpi=120)
    print(f"figure: {options.output}")


if __name__ == "__main__":
    main()
