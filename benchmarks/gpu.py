"""What an accelerator is for, measured on the one at hand in ten minutes, beside what was predicted for it.

    python -m benchmarks.gpu [--data FOLDER] [--seconds 600] [--only banana]
    python -m benchmarks.gpu --quick

Nothing is downloaded. Every row is saved as it ends; what does not fit into the time is left out, and named. With
`--quick` the same programs are run on little, anywhere, and nothing is saved.
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import parsample as ps
from benchmarks.chains import PUBLISHED, eigenbasis_at_mode, standardised_at_mode
from benchmarks.device import write_rows
from benchmarks.latency import PUBLISHED_NEWTON, evaluation
from benchmarks.linear_systems import DIM, SHAPES
from benchmarks.rounds.embeddings import rotated
from benchmarks.suite import targets
from parsample.engine import latency
from parsample.samplers import diffusion
from parsample.warmup.coordinates import plain

REPEATS, LONG = 5, 20.0
HEADER = (
    "what", "steps", "chains", "method", "iterations", "seconds", "least", "most", "times the loop",
    "predicted, s", "measured / predicted", "difference from the loop", "published",
)  # fmt: skip


class Program(NamedTuple):
    """An evaluation: the function, its arguments, and what is said of it.

    Attributes:
        what: problem.
        steps: of the chain.
        chains: evaluated together.
        method: in words.
        run: of the arguments; returns the states, and iterations or rounds.
        given: the arguments.
        published: by others, on which device.
        is_read: whether the latency model can read the program.
    """

    what: str
    steps: int
    chains: int
    method: str
    run: Callable
    given: tuple[Any, ...]
    published: str = ""
    is_read: bool = True


def banana(steps: int) -> Iterator[Program]:
    """HMC on the banana, one chain: the published case."""
    density = plain(ps.targets.Banana())
    sampler, start = ps.samplers.HMC(density, 0.5, num_integration_steps=8), jnp.zeros_like(density.center)
    ways: list[tuple[str, dict[str, Any], str]] = [
        ("loop", {"method": "sequential"}, "22.6 s, A100"),
        ("Newton", {"method": "newton"}, ""),
        ("Newton, active set", {"method": "newton", "active_set": True}, ""),
        ("published Newton", PUBLISHED_NEWTON, "0.135 s in 139 iterations, A100"),
    ]
    for name, options, published in ways:
        yield Program("banana, HMC", steps, 1, name, *evaluation(sampler, start, steps, **options), published)


def german_credit(steps: int, path: Path) -> Iterator[Program]:
    """MALA on German credit from its mode, four chains."""
    density, mode = eigenbasis_at_mode(ps.targets.GermanCredit(data=path))
    sampler = ps.samplers.MALA(density, 0.0015)
    inputs = jax.vmap(lambda key: sampler.draw_inputs(key, steps, mode))(jax.random.split(jax.random.key(0), 4))
    starts = jnp.broadcast_to(mode, (4, *mode.shape))
    ways: list[tuple[str, dict[str, Any], str]] = [
        ("loop", {"method": "sequential"}, ""),
        ("quasi-Newton, 2 probes", {"method": ps.methods.QuasiNewton("hutchinson", 2)}, ""),
        ("published quasi-Newton", PUBLISHED, "0.489 s in 76 iterations, H100"),
    ]
    for name, options, published in ways:

        def run(sampler: Any, starts: Any, inputs: Any, options: dict[str, Any] = options) -> Any:
            found = ps.evaluate(sampler.transition, starts, inputs, throw=False, chains=True, **options)
            return found.states, found.iterations

        yield Program("German credit, MALA", steps, 4, name, run, (sampler, starts, inputs), published)


def hares_and_lynxes(steps: int, data: Path) -> Iterator[Program]:
    """HMC on a differential equation: a gradient is many kernels one after the other."""
    density = standardised_at_mode(dict(targets(data))["lotka_volterra"])
    sampler, start = ps.samplers.HMC(density, 0.35, num_integration_steps=5), jnp.zeros_like(density.center)
    for name in ("sequential", "quasi_newton", "newton", "lifted_quasi_newton", "lifted_newton"):
        program = evaluation(sampler, start, steps, method=name)
        yield Program("hares and lynxes, HMC", steps, 1, "loop" if name == "sequential" else name, *program)


def embeddings(steps: int) -> Iterator[Program]:
    """MALA on a logistic regression of 1,024 rows and 768 columns."""
    density, mode, curvatures = rotated()
    sampler = ps.samplers.MALA(density, 0.015)
    surrogate = ps.methods.Surrogate(ps.samplers.MALA(ps.Gaussian(mode, 1 / curvatures), 0.015).transition)
    ways: list[tuple[str, dict[str, Any], str]] = [
        ("loop", {"method": "sequential"}, ""),
        ("surrogate, window 256", {"method": surrogate, "window": 256}, ""),
        ("published quasi-Newton, window 256", {**PUBLISHED, "window": 256}, "over 3 times the loop, H100"),
    ]
    for name, options, published in ways:
        program = evaluation(sampler, mode, steps, **options)
        yield Program("logistic, 1,024 x 768, MALA", steps, 1, name, *program, published)


def mixture(steps: int) -> Iterator[Program]:
    """MALA on the mixture of four."""
    density = plain(ps.targets.GaussianMixture())
    sampler, start = ps.samplers.MALA(density, 0.5), jnp.full_like(density.center, 2.0)
    for name, options in (("loop", {"method": "sequential"}), ("Newton", {"method": "newton"})):
        yield Program("mixture of 4, MALA", steps, 1, name, *evaluation(sampler, start, steps, **options))


def recurrent_unit(steps: int, dim: int = 64) -> Iterator[Program]:
    """An untrained gated recurrent unit."""
    cell = eqx.nn.GRUCell(dim, dim, key=jax.random.key(0))
    start, inputs = jnp.zeros(dim), jax.random.normal(jax.random.key(1), (steps, dim))
    ways: list[tuple[str, dict[str, Any]]] = [
        ("loop", {"method": "sequential"}),
        ("quasi-Newton, exact", {"method": ps.methods.QuasiNewton(estimator="exact")}),
        ("Newton", {"method": "newton"}),
    ]
    for name, options in ways:

        def run(cell: Any, start: Any, inputs: Any, options: dict[str, Any] = options) -> Any:
            found = ps.evaluate(lambda state, row: cell(row, state), start, inputs, throw=False, **options)
            return found.states, found.iterations

        yield Program(f"gated recurrent unit, D={dim}", steps, 1, name, run, (cell, start, inputs))


def digits(steps: int, samples: int = 16) -> Iterator[Program]:
    """DDPM with the network of the package."""
    model = diffusion.DigitsModel(diffusion.LinearBetas(), guidance=1.0)
    process = diffusion.DDPM(
        model, num_steps=steps, condition=jnp.asarray(7), sigma_data=model.sigma_data, surrogate=model.normal
    )
    for name in ("sequential", "scaled_identity", "subspace_newton"):

        def run(process: Any, name: str = name) -> Any:
            out = ps.diffuse(process, (8, 8), samples, method=name, throw=False)
            return out.samples, out.rounds

        method = "loop" if name == "sequential" else name
        # A network's program is read by the front door's own pieces, which the model does not see.
        yield Program("digits, DDPM", steps, samples, method, run, (process,), is_read=False)


def linear_systems(name: str, steps: int) -> Iterator[Program]:
    """The scan of an iteration by itself."""
    structure, shape = SHAPES[name]
    matrices = structure(0.2 * jax.random.normal(jax.random.key(0), (steps, *shape)))
    offsets = jax.random.normal(jax.random.key(1), (steps, DIM))
    for scan in ("loop", "associative", "blocked", "pallas"):

        def run(matrices: Any, offsets: Any, scan: str = scan) -> Any:
            return ps.solve_lds(matrices, offsets, jnp.zeros(DIM), scan=scan), 0

        yield Program(f"linear system, {name}", steps, 1, scan, run, (matrices, offsets), is_read=False)


def programs(data: Path | None, quick: bool) -> Iterator[Callable[[], Iterator[Program]]]:
    """Yield the problems, the most telling first, each to be made when its turn comes."""
    few = lambda steps, fewer: fewer if quick else steps  # noqa: E731
    yield lambda: banana(few(100_000, 200))
    if data is not None:
        yield lambda: german_credit(few(16_384, 64), data / "german.data-numeric")
        yield lambda: hares_and_lynxes(few(256, 8), data)
    yield lambda: digits(few(1000, 20), few(16, 2))
    yield lambda: embeddings(few(1024, 8))
    yield lambda: recurrent_unit(few(16_384, 64), few(64, 4))
    yield lambda: mixture(few(20_000, 100))
    for name in SHAPES:
        yield functools.partial(linear_systems, name, few(65_536, 64))


def predicted(program: Program, iterations: int) -> float | None:
    """Return the seconds that the latency model gives an evaluation; None for a device that it does not know."""
    name = latency.at_hand()
    if not name:
        return None
    device = latency.find(name)
    if name == latency.CPU:
        jitted: Any = eqx.filter_jit(program.run)
        work = latency.read(jitted.lower(*program.given).compile().compiled.as_text())
    else:
        work = latency.of_accelerator(program.run, *program.given)
    # What a batch of chains takes is in the program that is read: it has the axis.
    return work.once.seconds(device) + (0 if program.method == "loop" else iterations * work.trip.seconds(device))


def measure(program: Program) -> tuple[Any, int, list[float]]:
    """Run a program, compiled, up to five times; return its states, its largest number of iterations, and the times."""
    run: Any = eqx.filter_jit(program.run) if program.what != "digits, DDPM" else program.run
    states, iterations = jax.block_until_ready(run(*program.given))
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < LONG:
        began = time.perf_counter()
        jax.block_until_ready(run(*program.given))
        seconds.append(time.perf_counter() - began)
    return states, int(np.max(iterations)), seconds


def rows(data: Path | None, budget: float, only: str, quick: bool) -> Iterator[list[Any]]:
    """Yield a row for every program that fits into the time."""
    end = time.monotonic() + budget
    with jax.default_matmul_precision("highest"):
        for problem in programs(data, quick):
            loop: tuple[Any, float] | None = None
            for program in problem():
                label = [program.what, f"{program.steps:,}", program.chains, program.method]
                if only not in program.what:
                    break
                if time.monotonic() > end:
                    yield [*label, *["left out: no time"] + 8 * [""]]
                    continue
                states, iterations, seconds = measure(program)
                middle = float(np.median(seconds))
                loop = (states, middle) if loop is None else loop
                guess = predicted(program, iterations) if program.is_read else None
                yield [
                    *label,
                    "" if program.method == "loop" else iterations,
                    *(f"{value:.3g}" for value in (middle, min(seconds), max(seconds))),
                    f"{loop[1] / middle:.2g}",
                    "" if guess is None else f"{guess:.3g}",
                    "" if guess is None else f"{middle / guess:.2f}",
                    f"{float(jnp.abs(states - loop[0]).max()):.1g}",
                    program.published,
                ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="the data that do not ship; else without them")
    parser.add_argument("--seconds", type=float, default=600.0, help="after which no row is begun")
    parser.add_argument("--only", metavar="TEXT", default="", help="problems with this in their name; saves nothing")
    parser.add_argument("--quick", action="store_true", help="the same programs on little; saves nothing")
    parsed = parser.parse_args()
    if jax.default_backend() == "cpu" and not parsed.quick:
        parser.error("JAX has no accelerator here; --quick runs the same programs on little.")
    write_rows(
        "gpu",
        "On an accelerator: the loop, and the same chain in parallel",
        f"Medians of {REPEATS} calls of the compiled program, fewer where they take over {LONG:.0f} seconds in all. "
        "Predicted is what the latency model gives for this device and the iterations counted; of the loop on "
        "an A100 its one constant is fitted. The difference is the largest of any number of any step; an accept "
        "decision that hangs on less than the tolerance may fall otherwise.",
        HEADER,
        rows(parsed.data, parsed.seconds, parsed.only, parsed.quick),
        save=not (parsed.only or parsed.quick),
    )
