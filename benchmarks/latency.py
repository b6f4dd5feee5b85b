"""The latency model beside what was measured: on the processor at hand, and by others on an A100 and an H100.

    python -m benchmarks.latency --data FOLDER

The goal is a prediction within 30%. One number of the accelerators' is fitted, to the first of the published rows.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import parsample as ps
from benchmarks.chains import PUBLISHED, eigenbasis_at_mode
from benchmarks.device import write_rows
from benchmarks.rounds.embeddings import ROWS, rotated
from parsample.engine import latency
from parsample.warmup.coordinates import plain

REPEATS, LOOP, WINDOWS = 5, 2000, (256, 1024)
PUBLISHED_NEWTON = {
    "method": ps.methods.Newton("straight_through"),
    "conditioning": ps.Conditioning(damping=0.55, projection=False, clip=1.0),
}
HEADER = ("device", "what", "predicted", "measured", "measured / predicted", "within 30%", "source")


def evaluation(sampler: ps.samplers.Sampler, start: jax.Array, steps: int, **options: Any) -> tuple[Callable, Any]:
    """Return the function that evaluates a chain, and its arguments."""
    inputs = sampler.draw_inputs(jax.random.key(0), steps, start)

    def run(sampler: ps.samplers.Sampler, start: jax.Array, inputs: Any) -> Any:
        found = ps.evaluate(sampler.transition, start, inputs, throw=False, **options)
        return found.states, found.iterations

    return run, (sampler, start, inputs)


def here() -> Iterator[list[Any]]:
    """Yield the rows of the processor at hand; all that is timed takes turns, the model's constants too."""
    with jax.default_matmul_precision("highest"):
        programs = {}
        for name, sampler, start in cases():
            programs[name, "loop, a step"] = evaluation(sampler, start, LOOP, method="sequential")
            for method in ("quasi_newton", "newton"):
                for window in WINDOWS:
                    what = f"{method}, window {window:,}, an iteration"
                    programs[name, what] = evaluation(sampler, start, window, method=method)
        jitted: Any = eqx.filter_jit
        compiled = {key: jitted(run).lower(*given).compile() for key, (run, given) in programs.items()}
        counted = {key: int(compiled[key](*given)[1]) for key, (_, given) in programs.items()}
        seconds: dict[Any, list[float]] = {key: [] for key in programs}
        devices = []
        for _ in range(REPEATS):
            latency.calibrated.cache_clear()
            devices.append(latency.find("cpu")[:-1])
            for key, (_, given) in programs.items():
                began = time.perf_counter()
                jax.block_until_ready(compiled[key](*given))
                seconds[key].append(time.perf_counter() - began)
        device = latency.Device._make([*map(statistics.median, zip(*devices, strict=True)), "here"])
        for key, number in counted.items():
            program = latency.read(compiled[key].compiled.as_text())
            predicted = program.once.seconds(device) + number * program.trip.seconds(device)
            yield row("cpu", ", ".join(key), predicted / number, statistics.median(seconds[key]) / number, "here")


def cases() -> Iterator[tuple[str, ps.samplers.Sampler, jax.Array]]:
    """Yield a name, a sampler and a start."""
    for name, steps in (("banana", 8), ("eight_schools", 4)):
        density = plain(ps.TARGETS[name]())
        yield name, ps.samplers.HMC(density, 0.1, num_integration_steps=steps), jnp.zeros_like(density.center)


def elsewhere(data: Path | None) -> Iterator[list[Any]]:
    """Yield the rows of what others published."""
    with jax.default_matmul_precision("highest"):
        density = plain(ps.TARGETS["banana"]())
        start = jnp.zeros_like(density.center)
        sampler = ps.samplers.HMC(density, 0.5, num_integration_steps=8)
        a100, h100 = latency.find("a100"), latency.find("h100")

        def work(sampler: Any, start: Any, steps: int, **options: Any) -> latency.Program:
            run, given = evaluation(sampler, start, steps, **options)
            return latency.of_accelerator(run, *given)

        loop = work(sampler, start, 100_000, method="sequential").once.seconds(a100)
        yield row("a100", "banana, 100,000 steps of HMC, loop", loop, 22.6, "parallel-mcmc; fitted to this")
        newton = work(sampler, start, 100_000, **PUBLISHED_NEWTON).trip.seconds(a100)
        yield row("a100", "banana, the same by Newton, 139 iterations", 139 * newton, 0.135, "parallel-mcmc")
        if data is not None:
            turned, mode = eigenbasis_at_mode(ps.targets.GermanCredit(data=data / "german.data-numeric"))
            trip = work(ps.samplers.MALA(turned, 0.0015), mode, 16_384, **PUBLISHED).trip.of_chains(4).seconds(h100)
            what = "German credit, 4 chains of 16,384 steps of MALA, 76 iterations"
            yield row("h100", what, 76 * trip, 0.489, "parallel-mcmc")
        regression, mode, _ = rotated()
        mala = ps.samplers.MALA(regression, 0.015)
        step = work(mala, mode, 1024, method="sequential").once.seconds(h100)
        trip = work(mala, mode, 1024, window=256, **PUBLISHED).trip.seconds(h100)
        what = f"logistic, {ROWS:,} x 768, 1,024 steps of MALA: loop / 60 iterations of a window of 256"
        times = step / (60 * trip)
        yield [
            "h100",
            what,
            f"{times:.2g} times",
            "> 3 times",
            "-",
            "yes" if times > 3 else "no",
            "Zoltowski et al. 2025",
        ]


def row(device: str, what: str, predicted: float, measured: float, source: str) -> list[Any]:
    """Return the cells of a row."""
    ratio = measured / predicted
    good = "yes" if 1 / 1.3 <= ratio <= 1.3 else "no"
    return [device, what, _words(predicted), _words(measured), f"{ratio:.2f}", good, source]


def _words(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e6 * seconds:,.3g} us"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="the data that do not ship; else without them")
    parser.add_argument("--here", action="store_true", help="what is measured here alone; saves nothing")
    parsed = parser.parse_args()
    published = [] if parsed.here else elsewhere(parsed.data)
    write_rows(
        "latency",
        "The latency model beside measured times",
        f"Times here are medians of {REPEATS}, taken in turns with the programs that the constants of the processor "
        f"come from: one chain of HMC, {LOOP:,} steps by the loop, or all iterations of one window until it converges. "
        "Those of accelerators are the peak rates of data sheets, and seconds a kernel fitted to the published loop; "
        "that row says nothing, the others are predictions. Published programs are others than ours, with the same "
        "options.",
        HEADER,
        (line for part in (here(), published) for line in part),
        save=not parsed.here,
    )
