"""Langevin dynamics in two wells: Newton iterations and the Lyapunov exponent, chain by chain.

    python examples/two_wells.py --output two_wells.png

Unadjusted Langevin steps of 0.01 from the saddle between the wells, T=10,000, one chain a seed. Near the barrier
neighbouring trajectories part, in the wells they meet again; on the whole the chain is predictable. Published: at most
about 35 Newton iterations over 20 seeds, exponent -0.0145 (Gonzalez et al. 2025, "Predictability enables
parallelization of nonlinear state space models"); that is the row "Newton, not projected". Nested rows solve the same
dynamics in steps 32, 8 and 2 times as long first, each the guess of the next: few iterations are left for the chain
itself, and few evaluations, but the rounds of all levels together are as many as ever, because on which side of the
barrier a chain comes down has to be found out on some level. What does save rounds is a guess that knows of both wells:
the same chain on a mixture of two normal distributions, fitted to the draws of a short pilot chain. Steps so small
forget slowly, so all are accepted together (`Stopping(accept_early=0)`): in as many iterations the chain ends 50 times
nearer to the loop. Ends in a figure and a table.
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
from sklearn.mixture import GaussianMixture

import parsample as ps

STEP_SIZE = 0.01
# The pilot chain that the mixture is fitted to: MALA, with steps that cross the barrier.
PILOT_DRAWS, PILOT_STEP_SIZE, PILOT_SEED = 8_000, 0.5, 999
NEWTON: dict[str, Any] = {
    "method": "newton", "conditioning": ps.Conditioning(projection=False), "stopping": ps.Stopping(accept_early=0.0),
    "max_iterations": 100, "throw": False,
}  # fmt: skip


class Chain(NamedTuple):
    """A chain to solve: its sampler, and for one seed its inputs; and a mixture that resembles the target."""

    target: ps.targets.TwoWells
    mixture: ps.targets.GaussianMixture
    sampler: ps.samplers.ULA
    start: Any
    inputs: Any

    def evaluate(self, **options: Any) -> tuple[ps.Solution, ...]:
        """Solve the chain on one level."""
        return (ps.evaluate(self.sampler.transition, self.start, self.inputs, **{**NEWTON, **options}),)

    def nested(self, factors: tuple[int, ...], **options: Any) -> tuple[ps.Solution, ...]:
        """Solve it on several levels, leaving out those with less than one step."""
        steps = self.inputs.noise.shape[0]
        factors = tuple(factor for factor in factors if factor <= steps)
        return ps.evaluate_nested(
            lambda factor: self.sampler.coarsen(self.inputs, factor), self.start, factors, **NEWTON, **options
        )

    def of_the_gaussian(self, factor: int) -> Any:
        """Run the chain with the same noise on the Gaussian with the moments of the target: a free guess."""
        mean, deviation = self.target.moments()["x"]
        gaussian = ps.samplers.ULA(ps.Gaussian({"x": mean}, np.asarray(deviation) ** 2), self.sampler.step_size)
        transition, inputs = gaussian.coarsen(self.inputs, factor)
        return ps.evaluate_sequential(transition, self.start, inputs).states

    def of_the_mixture(self) -> Any:
        """Run the chain with the same noise on a mixture that was fitted to a pilot chain."""
        surrogate = ps.samplers.ULA(self.mixture.logdensity, self.sampler.step_size)
        return ps.evaluate_sequential(surrogate.transition, self.start, self.inputs).states


def mixture_of_a_pilot(target: ps.targets.TwoWells) -> ps.targets.GaussianMixture:
    """Fit two normal distributions to the draws of a chain with large steps."""
    pilot, start = ps.samplers.MALA(target.logdensity, PILOT_STEP_SIZE), {"x": jnp.zeros(2)}
    inputs = pilot.draw_inputs(jax.random.key(PILOT_SEED), PILOT_DRAWS, start)
    draws = np.asarray(ps.evaluate_sequential(pilot.transition, start, inputs).states["x"])
    found = GaussianMixture(2, random_state=0, n_init=3).fit(draws)
    return ps.targets.GaussianMixture(found.weights_, found.means_, found.covariances_)


PROJECTED = ps.Conditioning(projection=True)
METHODS: dict[str, Callable[[Chain], tuple[ps.Solution, ...]]] = {
    "Newton": lambda chain: chain.evaluate(conditioning=PROJECTED),
    "quasi-Newton": lambda chain: chain.evaluate(method=ps.methods.QuasiNewton("exact"), conditioning=PROJECTED),
    "Newton, not projected": lambda chain: chain.evaluate(),
    "the same from the Gaussian": lambda chain: chain.evaluate(guess=chain.of_the_gaussian(1)),
    "the same from a mixture": lambda chain: chain.evaluate(guess=chain.of_the_mixture()),
    "nested 32, 8, 2, 1": lambda chain: chain.nested((32, 8, 2, 1)),
    "nested 16, 4, 1 from the Gaussian": lambda chain: chain.nested(
        (16, 4, 1), guess=chain.of_the_gaussian(16), coarse={"max_iterations": 6}
    ),
}


def spread(counts: list[float]) -> str:
    """Return least, median and most of some counts."""
    return " / ".join(f"{number:g}" for number in (min(counts), np.median(counts), max(counts)))


def main(arguments: list[str] | None = None) -> Table:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("two_wells.png"))
    options = parser.parse_args(arguments)
    target = ps.targets.TwoWells()
    sampler = ps.samplers.ULA(target.logdensity, STEP_SIZE)
    start = {"x": jnp.zeros(2)}
    mixture = mixture_of_a_pilot(target)
    exponents: list[float] = []
    iterations, rounds, work = (dict[str, list[float]]((name, []) for name in METHODS) for _ in range(3))
    worst = dict.fromkeys(METHODS, 0.0)
    residual = 0.0
    for seed in range(options.seeds):
        inputs = sampler.draw_inputs(jax.random.key(seed), options.steps, start)
        chain = Chain(target, mixture, sampler, start, inputs)
        exponents.append(float(ps.lyapunov_exponent(sampler.transition, start, chain.inputs).exponent))
        loop = ps.evaluate_sequential(sampler.transition, start, chain.inputs).states["x"]
        for name, solve in METHODS.items():
            levels = solve(chain)
            last = levels[-1]
            iterations[name].append(int(last.iterations) if bool(last.converged) else np.inf)
            rounds[name].append(sum(int(level.iterations) for level in levels))
            work[name].append(sum(int(level.evaluations) for level in levels) / options.steps)
            if bool(last.converged):
                residual = max(residual, float(last.residual.max()))
                worst[name] = max(worst[name], float(jnp.abs(last.states["x"] - loop).max()))
    mean, error = np.mean(exponents), np.std(exponents) / np.sqrt(len(exponents))
    print(f"exponent per step {mean:.4f} ± {error:.4f} (published -0.0145)")
    print("Least / median / most over the seeds:")
    header = "method", "iterations", "rounds of all levels", "evaluations a step", "difference from the loop"
    table = Table(*header, "published", box=None)
    for name in METHODS:
        columns = spread(iterations[name]), spread(rounds[name]), f"{np.mean(work[name]):.1f}", f"{worst[name]:.1g}"
        table.add_row(name, *columns, "<= about 35" if name == "Newton, not projected" else "")
    Console(width=120).print(table)
    print(f"largest residual {residual:.1g}")
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for (name, counts), marker in zip(iterations.items(), "osdPx^v", strict=True):
        # Newton and quasi-Newton may fall together: the one is a ring around the other.
        ring: dict[str, Any] = {"ms": 10, "fillstyle": "none"} if name == "Newton" else {"ms": 6}
        axes.plot(exponents, counts, marker, label=name, alpha=0.8, **ring)
    axes.set_xlabel("largest Lyapunov exponent per step")
    axes.set_ylabel("iterations, of nested rows on the last level")
    axes.set_ylim(bottom=0)
    axes.set_title(f"Langevin dynamics in two wells, T={options.steps:,}, one point a seed", loc="left", fontsize=11)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.output, dpi=120)
    print(f"figure: {options.output}")
    return table


if __name__ == "__main__":
    main()
