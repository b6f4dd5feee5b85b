"""What warm-up learns of the covariance, by default and by each structure, over dimensions, lengths and spectra.

    python -m benchmarks.warmup_structures --keep FOLDER [--only 100] [--full] [--seeds 5]
    python -m benchmarks.warmup_structures --keep FOLDER --table

Normal distributions, every default but `mass`. Without `--full` a part of the grid in which every two levels of any two
factors meet, and the cells where the default once ruined the chains. Every run is kept in the folder as it ends, one
line of JSON in `warmup_structures.jsonl`, and is not made again while its line is there.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.kept import Row, keep, read
from parsample.results.trace import as_datatree, build_trace

HEADER = (
    "dim", "warm-up", "chains", "condition number", "ESS / 1,000 gradients: auto", "diagonal", "low rank", "dense",
    "auto / best", "smallest ESS: auto", "diagonal", "low rank", "dense",
)  # fmt: skip
DIMS, WARMUPS, CHAINS = (10, 30, 50, 100, 200), (300, 500, 1000, 2000), (1, 4)
MASSES = ("auto", "diagonal", "low_rank", "dense")
DRAWS, SEEDS = 1000, 3
# Auto is to be at least this share of the best of the others.
GOAL = 0.8


class Spectrum(NamedTuple):
    """The eigenvalues of a covariance, spread evenly in their logarithms, and whether along the coordinates."""

    condition: int
    rotated: bool

    def __str__(self) -> str:
        return f"{self.condition:,}{', rotated' if self.rotated else ', along axes' if self.condition > 1 else ''}"


class Cell(NamedTuple):
    """A row of the table."""

    dim: int
    warmup: int
    chains: int
    spectrum: Spectrum


SPECTRA = (
    Spectrum(1, False),
    Spectrum(100, False),
    Spectrum(100, True),
    Spectrum(10_000, False),
    Spectrum(10_000, True),
)
# Where a dense covariance from the first window once left chains with an effective sample of 2 to 20.
RUINED = (
    Cell(100, 1000, 1, SPECTRA[0]),
    Cell(100, 500, 4, SPECTRA[0]),
    Cell(50, 500, 1, SPECTRA[0]),
    Cell(30, 300, 1, SPECTRA[0]),
)
KEY = ("dim", "warmup", "chains", "condition", "rotated", "mass", "seed")


def cells(full: bool = False) -> list[Cell]:
    """Return the cells of the grid, or of a part that covers every pair of levels."""
    if full:
        return [Cell(*levels) for levels in itertools.product(DIMS, WARMUPS, CHAINS, SPECTRA)]
    thinned = [
        Cell(dim, WARMUPS[(i + j) % 4], CHAINS[(i // 2 + j) % 2], spectrum)
        for i, dim in enumerate(DIMS)
        for j, spectrum in enumerate(SPECTRA)
    ]
    return list(dict.fromkeys((*RUINED, *thinned)))


class Normal(ps.targets.Target):
    """N(0, C) by the inverse of a root of C, which is an argument of the compiled programs: spectra share them."""

    name: ClassVar[str] = "normal"

    whitening: Float[Array, "dim dim"]

    def logdensity(self, position: dict[str, Array]) -> Float[Array, ""]:
        """Return the log density up to a constant."""
        return -0.5 * jnp.sum((position["x"] @ self.whitening) ** 2)

    def position_template(self) -> dict[str, Array]:
        """Return zeros."""
        return {"x": jnp.zeros(self.whitening.shape[0])}


def directions_and_scales(dim: int, spectrum: Spectrum) -> tuple[np.ndarray, np.ndarray]:
    """Return the directions of the covariance as columns, and the standard deviation along each."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(dim, dim)))[0] if spectrum.rotated else np.eye(dim)
    return directions, rng.permutation(spectrum.condition ** np.linspace(-0.25, 0.25, dim))


def run(cell: Cell, mass: str, seed: int) -> Row:
    """Return the smallest effective sample size, bulk, of the coordinates and the directions, and the gradients."""
    directions, scales = directions_and_scales(cell.dim, cell.spectrum)
    start = time.perf_counter()
    trace = ps.sample(
        Normal(jnp.asarray(directions / scales, jnp.float32)),
        mass=mass,
        seed=seed,
        num_warmup=cell.warmup,
        num_samples=DRAWS,
        num_chains=cell.chains,
        method="sequential",
        compare=False,
        progress=False,
    )
    seconds = time.perf_counter() - start
    tree: Any = as_datatree(trace)
    x = tree["posterior"]["x"].values
    along = (x.astype(np.float64) @ directions) / scales
    summary = ps.summarize(build_trace({"posterior": {"x": x, "along": along}}))
    # What never moves has no effective draws, and neither has what is not finite.
    moving = summary["ess_bulk"].where(summary["sd"] > 0, 0.0)
    return {
        "ess": float(np.nan_to_num(moving.min(skipna=False))),
        "r_hat": float(summary["r_hat"].max()) if cell.chains > 1 else None,
        "deviations": [float(along.std(axis=(0, 1)).min()), float(along.std(axis=(0, 1)).max())],
        "gradients": int(tree["sample_stats"]["n_steps"].values.sum(dtype=np.int64)),
        "seconds": seconds,
    }


def labels(cell: Cell, mass: str, seed: int) -> Row:
    """Return what a row is known by."""
    return dict(zip(KEY, (*cell[:3], *cell.spectrum, mass, seed), strict=True))


def run_all(path: Path, wanted: Sequence[Cell], seeds: int) -> None:
    """Make and keep what is missing; an error is a row."""
    # Cells that share their programs come one after another.
    for cell in sorted(wanted, key=lambda cell: cell not in RUINED):
        for mass, seed in itertools.product(MASSES, range(seeds)):
            label = labels(cell, mass, seed)
            if tuple(label.values()) in read(path, KEY):
                continue
            try:
                row = run(cell, mass, seed)
            except Exception as error:
                row = {"error": f"{type(error).__name__}: {error}"[:500]}
            keep(path, label | row)
            print(*label.values(), row, flush=True)
        jax.clear_caches()


def rows(path: Path) -> Iterator[list[Any]]:
    """Yield a row for each cell of which every structure has run."""
    found = read(path, KEY)
    for cell in cells(full=True):
        runs = {
            mass: [row for key, row in found.items() if key[:6] == (*cell[:3], *cell.spectrum, mass)] for mass in MASSES
        }
        if not all(runs.values()):
            continue
        rates = [
            _median([1000 * row["ess"] / row["gradients"] for row in runs[mass] if "ess" in row]) for mass in MASSES
        ]
        smallest = [min((row["ess"] for row in runs[mass] if "ess" in row), default=0.0) for mass in MASSES]
        yield [
            *(cell.dim, f"{cell.warmup:,}", cell.chains, str(cell.spectrum)),
            *(f"{rate:.3g}" for rate in rates),
            f"{rates[0] / max(rates[1:]):.2f}",
            *(f"{ess:,.0f}" for ess in smallest),
        ]


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else 0.0


def note(table: Sequence[Sequence[Any]]) -> str:
    """Say what the columns are, and how often the goal is met."""
    below = [
        f"{row[0]} dimensions, {row[1]}, {row[2]} chains, {row[3]} ({row[8]})" for row in table if float(row[8]) < GOAL
    ]
    return (
        f"Normal distributions whose variances are spread evenly in their logarithms over the condition number, along "
        f"the coordinates or along random directions; {DRAWS:,} draws a chain, every default but `mass`, and "
        '`method="sequential"`. The effective sample size (ESS) is the bulk\'s of the worst coordinate or direction; '
        "per 1,000 gradients, those of warm-up not counted, the median over seeds, and of the sizes themselves the "
        f"smallest. Auto is to be at least {GOAL} of the best of the three; it is below that in {len(below)} of "
        f"{len(table)} cells{': ' + '; '.join(below) if below else ''}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, metavar="FOLDER", help="what has run, and what will")
    parser.add_argument("--only", nargs="+", type=int, default=DIMS, choices=DIMS, metavar="DIM", help="dimensions")
    parser.add_argument("--full", action="store_true", help="the whole grid, not a part that covers its pairs")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--table", action="store_true", help="make the table of what has run, run nothing")
    options = parser.parse_args()
    path = options.keep / "warmup_structures.jsonl"
    if options.table:
        title = "The covariance that warm-up learns: auto against each structure"
        write_rows("warmup_structures", title, note, HEADER, rows(path))
    else:
        run_all(path, [cell for cell in cells(options.full) if cell.dim in options.only], options.seeds)


if __name__ == "__main__":
    main()
