"""Ordinary models with every default, beside NumPyro's NUTS with its own.

    python -m benchmarks.ordinary_models --keep FOLDER [--sampler ours] [--only poisson_groups ...] [--seeds 2]
    python -m benchmarks.ordinary_models --keep FOLDER --table [--nuts-of benchmarks/results/ordinary_models.md]

The models are in benchmarks/ordinary. Every run is kept in the folder as it ends, one line of JSON in `ours.jsonl` or
`nuts.jsonl`, and is not made again while its line is there; the table is made of these lines. NUTS's runs take hours:
with `--nuts-of` its columns are those of an earlier table for models of which the folder has none. `--sampler long`
runs NUTS longer, with effects that are not centred: where the folder has such a run, ours is compared with that.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import MCMC, NUTS
from numpyro.infer.reparam import LocScaleReparam

import parsample as ps
from benchmarks.device import write_rows
from benchmarks.kept import Row, keep, read
from benchmarks.ordinary import EXPECTED_NOT_GOOD, KIND_OF, MODELS
from parsample.results.judgement import GOOD_ESS, GOOD_RHAT, judge
from parsample.results.summary import worst
from parsample.results.trace import as_datatree, build_trace
from parsample.targets import NumPyroModel

HEADER = (
    "model", "kind", "dim", "good", "good, NUTS", "R-hat", "R-hat, NUTS", "ESS", "ESS, NUTS", "ESS / 1,000 gradients",
    "the same, NUTS", "divergent", "divergent, NUTS", "largest z", "",
)  # fmt: skip
CHAINS, WARMUP, DRAWS, SEEDS = 4, 1000, 1000, 8
SETTINGS: dict[str, Any] = {
    "num_warmup": WARMUP,
    "num_samples": DRAWS,
    "num_chains": CHAINS,
    "method": "sequential",
    "compare": False,
    "progress": False,
}
# Means and standard deviations further from NUTS's than so many combined Monte Carlo standard errors are called wrong.
WRONG = 4.0


def judged(draws: Mapping[str, Any], stats: Mapping[str, Any]) -> Row:
    """Return what is kept of the draws of one run.

    Args:
        draws: variable -> values, leading axes (chain, draw).
        stats: `gradients` and `diverging` of every draw.
    """
    values = {name: np.asarray(value) for name, value in draws.items()}
    finite = all(np.isfinite(value).all() for value in values.values())
    summary = ps.summarize(build_trace({"posterior": values}))
    found = worst(summary)
    good = finite and found.r_hat < GOOD_RHAT and min(found.ess_bulk, found.ess_tail) > GOOD_ESS
    # The mean square of a standardised variable is 1, and its Monte Carlo error twice that of the standard deviation.
    squares = {name: _standardised(value) ** 2 for name, value in values.items()}
    error_of_squares = ps.summarize(build_trace({"posterior": squares}))["mcse_mean"]
    moments = {
        label: [row["mean"], row["sd"], row["mcse_mean"], 0.5 * row["sd"] * error_of_squares[label]]
        for label, row in summary.iterrows()
        if row["sd"] > 0 and math.isfinite(row["r_hat"])
    }
    return {
        "finite": bool(finite),
        "good": bool(good),
        "r_hat": found.r_hat,
        "ess_bulk": found.ess_bulk,
        "ess_tail": found.ess_tail,
        "worst": found.ess_bulk_variable,
        "gradients": int(np.sum(stats["gradients"], dtype=np.int64)),
        "divergences": int(np.sum(stats["diverging"])),
        "moments": moments,
    }


def _standardised(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of values that are not finite
        sd = values.std(axis=(0, 1))
        return (values - values.mean(axis=(0, 1))) / np.where(sd > 0, sd, 1.0)


def run_ours(name: str, seeds: Sequence[int]) -> Iterator[Row]:
    """Yield a row a seed: every default but the method, which decides how chains are evaluated, not which."""
    model, args, kwargs = MODELS[name]()
    target = NumPyroModel(model, *args, **kwargs)  # built once, so that seeds share what is compiled
    for seed in seeds:
        start = time.perf_counter()
        try:
            trace = ps.sample(target, seed=seed, **SETTINGS)
            seconds = time.perf_counter() - start
            tree: Any = as_datatree(trace)
            stats = {"gradients": tree["sample_stats"]["n_steps"], "diverging": tree["sample_stats"]["diverging"]}
            row = judged({key: value.values for key, value in tree["posterior"].data_vars.items()}, stats)
            step_size = np.median(tree["sample_stats"]["step_size"])
            yield {"seed": seed, "seconds": seconds, **row} | {
                "says_good": judge(trace).is_good,
                "step_size": float(step_size),
            }
        except Exception as error:
            yield {"seed": seed, "error": f"{type(error).__name__}: {error}"[:500]}


def run_nuts(name: str, seeds: Sequence[int]) -> Iterator[Row]:
    """Yield a row a seed: the chains of all seeds run together, each of which adapts by itself, so it is the same."""
    model, args, kwargs = MODELS[name]()
    start = time.perf_counter()
    mcmc = MCMC(
        NUTS(model),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS * len(seeds),
        chain_method="vectorized",
        progress_bar=False,
    )
    keys = jnp.concatenate([jax.random.split(jax.random.key(seed), CHAINS) for seed in seeds])
    mcmc.run(keys, *args, extra_fields=("num_steps", "diverging"), **kwargs)
    draws = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    fields = mcmc.get_extra_fields(group_by_chain=True)
    seconds = time.perf_counter() - start
    for index, seed in enumerate(seeds):
        rows = slice(index * CHAINS, (index + 1) * CHAINS)
        stats = {"gradients": fields["num_steps"][rows], "diverging": fields["diverging"][rows]}
        yield {"seed": seed, "seconds": seconds / len(seeds)} | judged(
            {key: value[rows] for key, value in draws.items()}, stats
        )


def run_long(name: str, seeds: Sequence[int]) -> Iterator[Row]:
    """Yield a row of NUTS with more and smaller steps, where no effect is centred that can be otherwise."""
    model, args, kwargs = MODELS[name]()
    effects = NumPyroModel(model, *args, **kwargs).centred
    model = handlers.reparam(model, config={effect: LocScaleReparam(0) for effect in effects})
    mcmc = MCMC(
        NUTS(model, target_accept_prob=0.95),
        num_warmup=2 * WARMUP,
        num_samples=20 * DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seeds[0]), *args, extra_fields=("num_steps", "diverging"), **kwargs)
    fields = mcmc.get_extra_fields(group_by_chain=True)
    stats = {"gradients": fields["num_steps"], "diverging": fields["diverging"]}
    yield {"seed": seeds[0]} | judged(mcmc.get_samples(group_by_chain=True), stats)


RUN: dict[str, Callable[[str, Sequence[int]], Iterator[Row]]] = {"ours": run_ours, "nuts": run_nuts, "long": run_long}
BESIDE = ("ours", "nuts")


KEY = ("model", "seed")


def run(folder: Path, samplers: Sequence[str], names: Sequence[str], num_seeds: int) -> None:
    """Make and keep what is missing; an error is a row."""
    for name in names:
        for sampler in samplers:
            path = folder / f"{sampler}.jsonl"
            done = read(path, KEY)
            seeds = [seed for seed in range(num_seeds) if (name, seed) not in done]
            for row in _guarded(sampler, name, seeds) if seeds else ():
                keep(path, {"model": name, "sampler": sampler, **row})
                print(name, sampler, *(f"{key}={row[key]}" for key in row if key != "moments"), flush=True)
            jax.clear_caches()


def _guarded(sampler: str, name: str, seeds: Sequence[int]) -> Iterator[Row]:
    made = set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for row in RUN[sampler](name, seeds):
                made.add(row["seed"])
                yield row
    except Exception as error:
        for seed in seeds:
            if seed not in made:
                yield {"seed": seed, "error": f"{type(error).__name__}: {error}"[:500]}


def table(folder: Path, nuts_of: Path | None = None) -> list[list[Any]]:
    """Return the rows of the table, one a model of which there is a run.

    Args:
        folder: where runs are kept.
        nuts_of: an earlier table, for NUTS's columns of models of which the folder has no runs of it. How far the two
            are apart is then taken from there, too, where our columns are the same, and else not known.
    """
    earlier = {} if nuts_of is None else _cells(nuts_of.read_text())
    ours: dict[str, list[Row]] = {name: [] for name in MODELS}
    nuts: dict[str, list[Row]] = {name: [] for name in MODELS}
    long: dict[str, list[Row]] = {name: [] for name in MODELS}
    for found, sampler in ((ours, "ours"), (nuts, "nuts"), (long, "long")):
        for (name, _), row in read(folder / f"{sampler}.jsonl", KEY).items():
            found.setdefault(name, []).append(row)
    names = [name for name in MODELS if ours[name] or nuts[name]]
    return [_row(name, ours[name], nuts[name], long[name], earlier.get(name)) for name in names]


def _cells(text: str) -> dict[str, list[str]]:
    """Return the cells of a table in Markdown by the first of each row."""
    rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| "))
    return {cells[0]: cells for cells in rows}


# Columns of what is counted of ours, and of NUTS's.
OURS, NUTS_S = slice(3, 12, 2), slice(4, 13, 2)


def _row(name: str, ours: list[Row], nuts: list[Row], long: list[Row], earlier: list[str] | None) -> list[Any]:
    z, where = largest_z(ours, long or nuts)
    text = "-" if z is None else f"{z:.1f}" + (" (long)" if long else "")
    row: list[Any] = [name, KIND_OF[name], dimensions(name), *[""] * 10, text, ""]
    row[OURS], row[NUTS_S] = ([f(rows) for f in (_good, _r_hat, _ess, _rate, _divergent)] for rows in (ours, nuts))
    if earlier is not None and not nuts:
        row[NUTS_S] = earlier[NUTS_S]
        row[-2] = text if long else earlier[-2] if row[OURS] == earlier[OURS] else "-"
    row[-1] = _remark(name, ours, row, where if z and z > WRONG else "")
    return row


def dimensions(name: str) -> int:
    """Return how many unconstrained numbers a model has; nothing is computed."""
    model, args, kwargs = MODELS[name]()

    def unconstrained(key: Any) -> list[Any]:
        sites = handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs).values()
        latent = [site for site in sites if site["type"] == "sample" and not site["is_observed"]]
        return [biject_to(site["fn"].support).inv(site["value"]) for site in latent]

    return sum(leaf.size for leaf in jax.eval_shape(unconstrained, jax.random.key(0)))


def _remark(name: str, ours: list[Row], row: list[Any], wrong: str) -> str:
    good, other = (_share(row[columns.start]) for columns in (OURS, NUTS_S))
    remarks = ["WRONG: " + wrong] if wrong else []
    if any(row.get("says_good") and not row["good"] for row in ours):
        remarks.append("our verdict says good of draws that are not")
    if good is not None and other is not None:
        remarks += ["fewer than half of NUTS's"] if good < other / 2 else ["fewer"] if good < other else []
        remarks += ["more"] if good > other else []
    return "; ".join([*remarks, *(["no chain can cross it"] if name in EXPECTED_NOT_GOOD else [])])


def _share(good: str) -> float | None:
    """Return the share of good runs that a cell tells, None where there are none."""
    return None if good == "-" else int(good.split()[0]) / int(good.split()[2])


def _good(rows: list[Row]) -> str:
    failed = sum("error" in row or not row["finite"] for row in rows)
    text = f"{sum(row.get('good', False) for row in rows)} of {len(rows)}" if rows else "-"
    return text + (f" ({failed} failed)" if failed else "")


def _known(rows: list[Row]) -> list[Row]:
    return [row for row in rows if "error" not in row]


def _r_hat(rows: list[Row]) -> str:
    values = [row["r_hat"] for row in _known(rows)]
    return "-" if np.isnan(values).all() else f"{np.nanmin(values):.3f} to {np.nanmax(values):.3f}"


def _smallest(row: Row) -> float:
    return float(np.nan_to_num(min(row["ess_bulk"], row["ess_tail"])))  # no ESS at all is none


def _ess(rows: list[Row]) -> str:
    return f"{np.median([_smallest(row) for row in _known(rows)]):,.0f}" if _known(rows) else "-"


def _rate(rows: list[Row]) -> str:
    rates = [1000 * _smallest(row) / row["gradients"] for row in _known(rows)]
    return f"{np.median(rates):.3g}" if rates else "-"


def _divergent(rows: list[Row]) -> str:
    return f"{np.median([row['divergences'] for row in _known(rows)]):.0f}" if _known(rows) else "-"


def largest_z(ours: list[Row], nuts: list[Row]) -> tuple[float | None, str]:
    """Return how far the good draws of the two are apart, all good seeds pooled, and of which variable.

    Returns:
        The largest difference of a mean or a standard deviation, in combined Monte Carlo standard errors; None where
        one of them has no good draws.
    """
    mine, other = ([row["moments"] for row in rows if row.get("good")] for rows in (ours, nuts))
    found: list[tuple[float, str]] = []
    for label in set.intersection(*map(set, mine + other)) if mine and other else ():
        (a, a_error), (b, b_error) = (_pooled([row[label] for row in rows]) for rows in (mine, other))
        mean, sd = np.abs(a - b) / np.hypot(a_error, b_error)
        found += [(float(mean), f"mean of {label}"), (float(sd), f"sd of {label}")]
    return max(found) if found else (None, "")


def _pooled(moments: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array(moments)
    return values[:, :2].mean(axis=0), np.sqrt((values[:, 2:] ** 2).sum(axis=0)) / len(values)


def note(rows: Sequence[Sequence[Any]]) -> str:
    """Say what the columns are, and where ours loses."""
    lost = {
        word: [row[0] for row in rows if word in row[-1].split("; ")]
        for word in ("fewer than half of NUTS's", "fewer", "more")
    }
    sums = ". ".join(f"Good in {word}: {', '.join(names) or 'none'}" for word, names in lost.items())
    return (
        f"{len(rows)} models (benchmarks/ordinary), written as their users would, {CHAINS} chains, {WARMUP:,} warm-up "
        f'steps and {DRAWS:,} draws a chain. Ours with every default but `method="sequential"`, which changes how the '
        "chain is evaluated and the draws only within the tolerance; NumPyro's NUTS with its defaults, on the same "
        f"seeds. Good: an R-hat below {GOOD_RHAT} and a bulk and tail effective sample size (ESS) above {GOOD_ESS} of "
        "the worst variable, deterministic ones too, by the same code for both. ESS is the smaller one of the worst "
        "variable, its median over seeds; gradients are those of the draws, warm-up not counted; divergent draws are "
        "the median. Largest z: difference of the means or standard deviations of the two, good seeds pooled, in Monte "
        f"Carlo standard errors; beyond {WRONG:.0f} the variable is named. Where it says long, the other is a run of "
        f"NUTS with 20 times the draws, an acceptance of 0.95 and effects that are not centred. {sums}. {totals(rows)}"
    )


def totals(rows: Sequence[Sequence[Any]]) -> str:
    """Say what the rows of a table come to."""
    ours, nuts = (sum(int(row[column].split()[0]) for row in rows if row[column] != "-") for column in (3, 4))
    rates = [[float(row[column].replace(",", "")) for column in (9, 10)] for row in rows if "-" not in row[9:11]]
    ratios = [mine / other for mine, other in rates]
    return (
        f"Of all runs {ours:,} of ours are good, and {nuts:,} of NUTS's. A gradient is worth more in ours on "
        f"{sum(ratio > 1 for ratio in ratios)} of the {len(ratios)} models where both are known, "
        f"{np.median(ratios):.1f} times as much in the median."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, metavar="FOLDER", help="what has run, and what will")
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--sampler", choices=list(RUN), help="leave out for ours and nuts")
    parser.add_argument("--table", action="store_true", help="make the table of what has run, run nothing")
    parser.add_argument("--nuts-of", type=Path, metavar="TABLE", help="an earlier table with runs of NUTS")
    options = parser.parse_args()
    if options.table:
        title = "Ordinary models, every default, beside NumPyro's NUTS"
        write_rows("ordinary_models", title, note, HEADER, table(options.keep, options.nuts_of))
    else:
        run(options.keep, [options.sampler] if options.sampler else BESIDE, options.only, options.seeds)


if __name__ == "__main__":
    main()
