"""Wall-clock time of whole chains against BlackJAX, NumPyro and the published parallel method, on this device.

    python -m benchmarks.wall_clock --data FOLDER

Every opponent gets the same log density in the same coordinates (those that our warm-up finds), the same step size,
number of leapfrog steps, starts and number of chains, and is called as its users call it. All run in turns in one
process, compiled before; ratios are of medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer

import parsample as ps
from benchmarks.chains import PUBLISHED
from benchmarks.device import write_rows
from benchmarks.suite import targets
from parsample.engine import planner
from parsample.engine.evaluate import evaluate
from parsample.samplers.configured import Configured
from parsample.warmup.adapt import adapt
from parsample.warmup.coordinates import starts, to_standardised

HEADER = (
    "target", "dim", "sampler", "leapfrog steps", "draws", "loop, us a draw", "BlackJAX / loop", "NumPyro / loop",
    "draws of the parallel runs", "fastest parallel method", "it / loop", "published / it", "auto took",
    "fastest / auto's",
)  # fmt: skip
CHAINS, REPEATS = 4, 5
# Draws a chain of the loops, and of the parallel methods; fewer where a run of the loop would take longer than SECONDS.
DRAWS, PARALLEL_DRAWS, FEWEST, SECONDS = 10_000, 512, 256, 1.0
WINDOWS = (16, 64, 256)
# The published method is stopped after one iteration for so many draws; ours have as many iterations as they need.
PUBLISHED_ADVANCE = 2
# Seconds of compiling so far, as JAX reports them: NumPyro compiles in every run.
COMPILING = [0.0]


def listen(event: str, duration_secs: float, **_: str | int) -> None:
    """Add up what JAX says about compiling: tracing, lowering, and the compiler itself."""
    if event.startswith("/jax/core/compile/"):
        COMPILING[0] += duration_secs


def medians(runs: Mapping[str, Callable[[jax.Array], Any]]) -> dict[str, float]:
    """Return the median seconds of each without compiling, run in turns after one call that compiles it."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(REPEATS + 1):
        for name, run in runs.items():
            key, start, compiled = jax.random.key(repeat), time.perf_counter(), COMPILING[0]
            jax.block_until_ready(run(key))
            times[name].append(time.perf_counter() - start - (COMPILING[0] - compiled))
    return {name: statistics.median(row[1:]) for name, row in times.items()}


class Case:
    """A sampler on a target, warmed up: what all opponents are given.

    Args:
        target: to sample.
        name: of the sampler, "mala" or "hmc".
    """

    def __init__(self, target: ps.targets.Target, name: str):
        """Warm up, with fixed step sizes as the opponents have them."""
        make = Configured(ps.SAMPLERS[name], {} if name == "mala" else {"step_size_jitter": 0})
        keys = jax.random.split(jax.random.key(0), CHAINS)
        found = adapt(target, make, starts(target, keys), keys, 2000)
        self.density, self.step_size = found.density, found.step_size
        self.sampler: Any = make.chosen(found.sampler_options)(found.density, found.step_size)
        self.length = getattr(self.sampler, "num_integration_steps", None)
        self.starts = to_standardised(found.density, found.last)
        self.dim = self.starts.shape[1]

    def ours(self, draws: int, evaluation: Callable, chains: int = CHAINS) -> Callable[[jax.Array], Any]:
        """Return so many chains by this evaluation, drawing their inputs included."""

        @jax.jit
        def run(key: jax.Array) -> Any:
            def chain(key: jax.Array, start: jax.Array) -> Any:
                inputs = self.sampler.draw_inputs(key, draws, start)
                solution = evaluation(self.sampler.transition, start, inputs)
                return solution.states, solution.converged

            return jax.vmap(chain)(jax.random.split(key, chains), self.starts[:chains])

        return run

    def blackjax(self, draws: int) -> Callable[[jax.Array], Any]:
        """Return all chains by BlackJAX: a scan over vmapped steps."""
        if self.length is None:
            kernel = blackjax.mala(self.density, self.step_size)
        else:
            kernel = blackjax.hmc(self.density, self.step_size, jnp.ones(self.dim), self.length)

        def step(states: Any, key: jax.Array) -> Any:
            states, info = jax.vmap(kernel.step)(jax.random.split(key, CHAINS), states)
            return states, (states.position, info.acceptance_rate)

        @jax.jit
        def run(key: jax.Array) -> Any:
            return jax.lax.scan(step, jax.vmap(kernel.init)(self.starts), jax.random.split(key, draws))[1]

        return run

    def numpyro(self, draws: int) -> Callable[[jax.Array], Any]:
        """Return all chains by NumPyro's MCMC with HMC, vectorised, nothing adapted."""
        kernel = numpyro.infer.HMC(
            potential_fn=lambda z: -self.density(z),
            step_size=self.step_size,
            num_steps=self.length,
            trajectory_length=None,
            adapt_step_size=False,
            adapt_mass_matrix=False,
        )
        mcmc = numpyro.infer.MCMC(
            kernel,
            num_warmup=0,
            num_samples=draws,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(0), init_params=self.starts)

        def run(key: jax.Array) -> Any:
            # From the last state, so that the kernel is not set up, and compiled, once more.
            mcmc.post_warmup_state = mcmc.last_state
            mcmc.run(key)
            return mcmc.get_samples()

        return run

    def affordable(self, most: int) -> int:
        """Return as many draws as the loop makes in `SECONDS`, at most `most`."""
        seconds = medians({"": self.ours(FEWEST, ps.evaluate_sequential)})[""]
        return int(np.clip(FEWEST * SECONDS / seconds, FEWEST, most)) // FEWEST * FEWEST

    def auto(self, draws: int) -> str:
        """Return what `method="auto"` takes for one of the chains."""
        inputs = self.sampler.draw_inputs(jax.random.key(0), draws, self.starts[0])
        plan = planner.choose(
            evaluate,
            self.sampler.transition,
            self.starts[0],
            inputs,
            window=None,
            options={"atol": 1e-4, "rtol": 1e-3},
        )
        return "loop" if plan.window is None else f"quasi_newton, window {plan.window}"


def parallel(limit: int, **options: Any) -> Callable:
    """Return the evaluation of a chain by a parallel method, with at most so many iterations."""
    return lambda *given: ps.evaluate(*given, max_iterations=limit, throw=False, **options)


def row(name: str, target: ps.targets.Target, sampler: str) -> list[Any]:
    """Return a row of the table."""
    case = Case(target, sampler)
    draws = case.affordable(DRAWS)
    opponents = {"loop": case.ours(draws, ps.evaluate_sequential), "blackjax": case.blackjax(draws)}
    opponents |= {} if case.length is None else {"numpyro": case.numpyro(draws)}
    seconds = medians(opponents)
    few = min(draws, PARALLEL_DRAWS)
    evaluations = {
        f"{method}, window {window}": parallel(few, method=method, window=window)
        for method in ("quasi_newton", "newton")
        for window in WINDOWS
    }
    published = case.ours(few, parallel(few // PUBLISHED_ADVANCE, **PUBLISHED))
    loop = {"loop": ps.evaluate_sequential}
    runs = {label: case.ours(few, evaluation) for label, evaluation in (loop | evaluations).items()}
    found = medians({"published": published} | runs)
    fastest = min(evaluations, key=lambda label: found[label])
    is_done = bool(jnp.all(published(jax.random.key(0))[1]))
    # `method="auto"` decides for one chain, so it is judged on one.
    auto = case.auto(few)
    judged = {label: (loop | evaluations)[label] for label in {"loop", fastest, auto}}
    alone = medians({label: case.ours(few, evaluation, 1) for label, evaluation in judged.items()})
    ratio = lambda one, other: f"{one / other:.2f}"  # noqa: E731
    return [
        *(name, case.dim, sampler, case.length or "", f"{draws:,}", f"{1e6 * seconds['loop'] / draws / CHAINS:.2f}"),
        ratio(seconds["blackjax"], seconds["loop"]),
        ratio(seconds["numpyro"], seconds["loop"]) if "numpyro" in seconds else "",
        *(f"{few:,}", fastest, ratio(found[fastest], found["loop"])),
        ("" if is_done else "> ") + ratio(found["published"], found[fastest]),
        *(auto, ratio(min(alone.values()), alone[auto])),
    ]


def rows(data: Path | None, only: str) -> Iterator[list[Any]]:
    """Yield the rows, and at the end the geometric means; those of data that do not ship only where they are given."""
    found = []
    for name, target in targets(data):
        jax.clear_caches()
        for sampler in ("mala", "hmc") if only in name else ():
            found.append(row(name, target, sampler))
            yield found[-1]
    yield ["geometric mean", "", "", "", "", "", *(mean(found, place) for place in (6, 7)), *("", ""), *means(found)]


def means(found: Sequence[Sequence[Any]]) -> list[str]:
    """Return the cells of the last columns."""
    return [mean(found, 10), mean(found, 11), "", f"least {min(float(cells[13]) for cells in found):.2f}"]


def mean(found: Sequence[Sequence[Any]], place: int) -> str:
    """Return the geometric mean of a column; bounds count as what they are at least."""
    values = [float(cells[place].removeprefix("> ")) for cells in found if cells[place]]
    return f"{np.exp(np.mean(np.log(values))):.2f}" if values else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of data that do not ship, for their rows")
    parser.add_argument("--only", default="", help="targets with this in their name; prints, saves nothing")
    given = parser.parse_args()
    jax.monitoring.register_event_duration_secs_listener(listen)
    write_rows(
        "wall_clock",
        f"Wall clock: {CHAINS} chains, compiled, medians of {REPEATS} runs in turns in one process",
        "Loop: `evaluate_sequential` with the inputs drawn in advance, the drawing included. BlackJAX: its kernel, "
        "vmapped, in a scan. NumPyro: `MCMC(HMC(...), chain_method='vectorized')`, its call without the compiling that "
        "it does anew in every run. All three have the same log density, coordinates, starts, step size and number of "
        "leapfrog steps, and nothing is adapted. A ratio above 1 says how many times as long the first takes as the "
        f"second. Parallel: quasi-Newton and Newton with windows of {', '.join(map(str, WINDOWS))} steps; published: "
        "Hutchinson's diagonal with the straight-through gate, clipped, over all steps (`chains.PUBLISHED`), at one "
        'tolerance (atol 1e-4, rtol 1e-3); "> ": it was stopped before its end, at one iteration for '
        f"{PUBLISHED_ADVANCE} draws. The last columns are of one chain, for which `method='auto'` decides: what it "
        "takes, and the time of the faster one of the loop and the fastest parallel method divided by that of what it "
        "takes; that it measures first is not counted.",
        HEADER,
        rows(given.data, given.only),
        save=not given.only,
    )


if __name__ == "__main__":
    main()
