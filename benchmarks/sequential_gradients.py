"""Effective draws for the gradients that wait for each other: the loop, its chain in parallel, and steps made for that.

    python -m benchmarks.sequential_gradients --data FOLDER

What counts where a device has room for a whole window: the length of the longest sequence of gradients, one after the
other. All are counts, which do not depend on the machine's speed.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.suite import targets
from parsample.results.trace import as_datatree
from parsample.results.verdict import Verdict

TARGETS = ("eight_schools", "breast_cancer", "kidscore_interaction", "garch", "german_credit", "blr", "autoregressive")
DRAWS, CHAINS, LONG = 3072, 4, 16_384
SETTINGS: dict[str, dict[str, Any]] = {
    "loop": {"method": "sequential"},
    "the same chain, quasi-Newton, window 1,024": {"method": "quasi_newton", "window": 1024},
    "the same chain, lifted Newton, window 1,024": {"method": "lifted_newton", "window": 1024},
    'tune="rounds", Newton, window 1,024': {"method": "newton", "window": 1024, "tune": "rounds"},
    'tune="rounds", Newton, whole chain': {
        "method": "newton", "window": "all", "tune": "rounds", "num_samples": LONG, "num_chains": 1
    },
    'tune="rounds", lifted Newton, window 1,024': {"method": "lifted_newton", "window": 1024, "tune": "rounds"},
    'tune="rounds", lifted Newton, whole chain': {
        "method": "lifted_newton", "window": "all", "tune": "rounds", "num_samples": LONG, "num_chains": 1
    },
}  # fmt: skip
HEADER = (
    "target", "setting", "draws a chain", "sampler", "iterations", "left to the loop", "tolerance",
    "gradients in sequence", "effective draws", "per 1,000 of them", "times the loop's",
)  # fmt: skip


def gradients_in_sequence(verdict: Verdict, leapfrog_steps: int) -> float:
    """Return how many gradients of a run wait for each other.

    An iteration needs the gradient where each of its steps begins, which the loop carries along; with lifted Newton all
    gradients of an iteration at once.
    """
    name = verdict.method.partition("(")[0]  # a method with options is told by its class and those
    lifted = [(known, kind.__name__) for known, kind in ps.methods.METHODS.items() if kind.is_lifted]
    is_lifted = any(name in names for names in lifted)
    a_turn = 1 if is_lifted else leapfrog_steps + (name != "sequential")
    rounds = verdict.iterations * a_turn
    return rounds + verdict.finished_sequentially / verdict.chains * leapfrog_steps


def measure(target: ps.targets.Target, options: Mapping[str, Any]) -> list[Any]:
    """Return the cells of a row: what the run took, and its effective draws for 1,000 gradients in sequence."""
    given = {"num_samples": DRAWS, "num_chains": CHAINS, "compare": False, "progress": False, **options}
    trace: Any = as_datatree(ps.sample(target, **given))
    verdict = ps.read_verdict(trace)
    assert verdict.judgement is not None
    worst, stats = verdict.judgement.worst, trace["sample_stats"]
    leapfrog_steps = int(np.max(stats["n_steps"])) if "n_steps" in stats else 1
    effective = min(worst.ess_bulk, worst.ess_tail)
    gradients = gradients_in_sequence(verdict, leapfrog_steps)
    left = verdict.finished_sequentially / given["num_chains"]
    cells = [given["num_samples"], verdict.sampler, verdict.iterations, f"{left:.0f}", f"{verdict.atol:.1g}"]
    return [*cells, f"{gradients:,.0f}", f"{effective:,.0f}", 1000 * effective / gradients]


def rows(data: Path | None, only: str, settings: Sequence[str]) -> Iterator[list[Any]]:
    """Yield a row for every target and setting."""
    for name, target in targets(data):
        if name not in TARGETS or only not in name:
            continue
        loop = None
        for setting in settings:
            *cells, found = measure(target, SETTINGS[setting])
            loop = found if loop is None else loop
            yield [name, setting, *cells, f"{found:,.0f}", f"{found / loop:.1f}"]
            jax.clear_caches()  # so many programs have no room beside each other


def note(found: Sequence[Sequence[Any]]) -> str:
    """Return what the table is of, with the geometric mean over the targets for every setting."""
    means = []
    for setting in dict.fromkeys(row[1] for row in found if row[1] != "loop"):
        times = [float(row[-1]) for row in found if row[1] == setting]
        means.append(f"{statistics.geometric_mean(times):.0f} ({setting})")
    return (
        f"HMC as warm-up leaves it, or tuned for rounds; {CHAINS} chains of {DRAWS:,} draws, whole chains one of "
        f"{LONG:,}. Effective draws are the smaller of bulk and tail of the worst variable. Gradients in sequence: a "
        "step of the loop has one for each leapfrog step, an iteration one more, with lifted Newton one in all; steps "
        "that the loop finished count as in the loop. Times the loop's effective draws for them, geometric mean: "
        f"{'; '.join(means)}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="the data that do not ship; else without them")
    parser.add_argument("--only", metavar="TEXT", default="", help="targets with this in their name; saves nothing")
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="how many of them, from the first on")
    parsed = parser.parse_args()
    write_rows(
        "sequential_gradients",
        "Effective draws for 1,000 gradients that wait for each other",
        note,
        HEADER,
        rows(parsed.data, parsed.only, list(SETTINGS)[: parsed.settings]),
        save=not parsed.only,
    )
