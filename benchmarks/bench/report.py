"""What the suite found: the numbers as JSON, and the table and the figure that are made of it."""

import datetime
import importlib.metadata
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.bench.cases import NAMES
from benchmarks.bench.measure import BUDGET, MOST, REPEATS, Row
from benchmarks.bench.opponents import AUTO, FAMILIES, LEAPFROG_STEPS, PUBLISHED_ITERATIONS, Size
from benchmarks.device import table_lines
from parsample.results.judgement import GOOD_ESS, GOOD_RHAT

VERSIONS = ("parsample", "jax", "jaxlib", "numpyro", "blackjax", "nutpie", "arviz")
# Slower than the best fixed choice by more than this is called a loss of the default.
NEVER_BELOW = 0.95
# Means further from the loop's than so many standard errors are pointed out; of thousands some are beyond 4.
FAR = 5.0
RATES = {"rate": "warm", "rate_in_total": "compiling included", "rate_per_gradient": "a gradient of the draws"}


def environment() -> Row:
    """Return where a result was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    found = {distribution.name for distribution in importlib.metadata.distributions()}
    return {
        "device": f"{jax.devices()[0].device_kind} with {os.cpu_count()} cores",
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS if name in found},
        "date": datetime.date.today().isoformat(),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit.stdout.strip(),
    }


def line(row: Row) -> str:
    """Return a row as it is printed while the suite runs."""
    for word in ("skipped", "error"):
        if word in row:
            return f"{row['opponent']} | {word}: {row[word]}"
    return " | ".join(map(str, cells(row)))


def save(folder: Path, name: str, place: Row, dim: int, rows: Sequence[Row]) -> None:
    """Put the rows of a posterior into bench.json, and make bench.md and bench.png anew."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found[name] = {"dim": dim, "environment": place, "rows": list(rows)}
    found = {name: found[name] for name in NAMES if name in found}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    new.replace(path)
    (folder / "bench.md").write_text(markdown(found), encoding="utf-8")
    draw(found, folder / "bench.png")


def known(found: Mapping[str, Any], name: str) -> dict[str, Row]:
    """Return the rows of a posterior that have numbers, by opponent."""
    return {row["opponent"]: row for row in found[name]["rows"] if "rate" in row}


def best(rows: Mapping[str, Row], family: str, rate: str) -> Row | None:
    """Return the best row of an opponent, or of a family of them; auto is none of its own."""
    others = [row for name, row in rows.items() if name.startswith(family) and name != AUTO]
    return max(others, key=lambda row: row[rate], default=None)


def ratios(found: Mapping[str, Any], family: str, rate: str) -> dict[str, tuple[float, bool]]:
    """Return by posterior how many times as fast auto is as the best of a family, and whether both are good.

    First calls of ours are not compared: auto, the first, compiles what the others share.
    """
    if family.startswith("ours") and rate != "rate":
        return {}
    pairs = {name: (known(found, name).get(AUTO), best(known(found, name), family, rate)) for name in found}
    return {
        name: (auto[rate] / other[rate], auto["good"] and other["good"])
        for name, (auto, other) in pairs.items()
        if auto and other and other[rate] > 0
    }


def mean(pairs: Mapping[str, tuple[float, bool]]) -> tuple[float, int]:
    """Return the geometric mean of the ratios where both are good, and of how many."""
    values = [ratio for ratio, good in pairs.values() if good]
    return (float(np.exp(np.mean(np.log(values)))) if values else float("nan")), len(values)


def losses(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield where auto is not the fastest, or not good, a line each."""
    for rate, words in RATES.items():
        for family in FAMILIES:
            for name, (ratio, _) in ratios(found, family, rate).items():
                other = best(known(found, name), family, rate)
                if other and ratio < (NEVER_BELOW if family == "ours" else 1.0):
                    word = "" if other["good"] else ", whose draws are not good"
                    yield f"{name}, {words}: {ratio:.2f} of {other['opponent']}{word}"
    for name in found:
        auto = known(found, name).get(AUTO)
        if auto is None:
            yield f"{name}: auto failed"
        elif not auto["good"]:
            yield f"{name}: auto's draws are not good (R-hat {auto['r_hat']:.3f}, {auto['ess']:,.0f} effective draws)"


def opponents(found: Mapping[str, Any]) -> list[str]:
    """Return the families and opponents that have rows, in order."""
    names = dict.fromkeys(row for name in found for row in known(found, name) if row != AUTO)
    groups = {family: [name for name in names if name.startswith(family)] for family in FAMILIES}
    # A family of one is its member.
    return [entry for family, group in groups.items() for entry in ([family, *group] if len(group) > 1 else group)]


CELLS = (
    "opponent", "effective draws", "seconds", "a second", "first call, s", "a second of it", "gradients",
    "in sequence", "iterations", "K", "left to the loop", "divergent", "runs", "good", "",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return the cells of an opponent's row."""
    if "rate" not in row:
        text = f"skipped: {row['skipped']}" if "skipped" in row else f"failed: {row.get('error', '')}"
        return [row["opponent"], *[""] * (len(CELLS) - 2), text]
    parallel = row.get("method", "sequential") != "sequential"
    work = [row["iterations"], f"{row['evaluations_per_step']:.1f}", row["finished_by_loop"]] if parallel else [""] * 3
    remarks = [f"sampler {row['sampler']}"] if "sampler" in row else []
    remarks += [f"differs from the loop's chain by {row['difference']:.1g} sd"] if row.get("difference") else []
    remarks += (
        [f"but for {row['parted']:.1%} of the draws, after rounding turned a decision"] if row.get("parted") else []
    )
    remarks += (
        [f"means {row['z']:.1f} standard errors from the loop's"] if row["good"] and row.get("z", 0.0) > FAR else []
    )
    numbers = [f"{row['ess']:,.0f}", f"{row['seconds']:.3g}", f"{row['rate']:,.0f}", f"{row['first']['seconds']:.3g}"]
    numbers += [f"{row['rate_in_total']:,.0f}", f"{row['gradients']:,.0f}", f"{row['sequence']:,.0f}", *work]
    return [row["opponent"], *map(str, numbers), f"{row['divergences']:.0f}", str(len(row["runs"])),
            "yes" if row["good"] else "no", "; ".join(remarks)]  # fmt: skip


def markdown(found: Mapping[str, Any]) -> str:
    """Return the page: losses, geometric means, ratios, and all numbers."""
    lost = list(losses(found)) or ["none"]
    lines = [
        "# Effective draws a second, by every default",
        "",
        "## Where auto loses",
        "",
        *(f"- {row}" for row in lost),
    ]
    lines += ["", "## How many times as fast auto is", "", NOTE, "", *where(found), ""]
    header = ["against", "geometric mean, warm", "least", "posteriors"]
    header += [cell for words in list(RATES.values())[1:] for cell in (f"geometric mean, {words}", "least")]
    lines += [*table_lines(header, [_means(found, entry) for entry in opponents(found)]), ""]
    entries = opponents(found)
    lines += ["Warm, one by one (* where not both have good draws):", ""]
    pairs = {entry: ratios(found, entry, "rate") for entry in entries}
    rows = [[name, found[name]["dim"], *(_ratio(pairs[entry].get(name)) for entry in entries)] for name in found]
    lines += [*table_lines(["posterior", "dim", *map(_title, entries)], rows), ""]
    for name in found:
        lines += [f"## {name}, {found[name]['dim']} dimensions", ""]
        lines += [*table_lines(CELLS, [cells(row) for row in found[name]["rows"]]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _title(entry: str) -> str:
    return f"best of {entry}" if entry in FAMILIES[:3] else entry


def _ratio(pair: tuple[float, bool] | None) -> str:
    return "" if pair is None else f"{pair[0]:.2f}{'' if pair[1] else '*'}"


def _means(found: Mapping[str, Any], entry: str) -> list[str]:
    row = [_title(entry)]
    for rate in RATES:
        pairs = ratios(found, entry, rate)
        value, count = mean(pairs)
        least = min((ratio for ratio, good in pairs.values() if good), default=float("nan"))
        row += [f"{value:.2f}", f"{least:.2f}"] if count else ["", ""]
        row += [f"{count} of {len(pairs)}"] if rate == "rate" else []
    return row


def where(found: Mapping[str, Any]) -> list[str]:
    """Return a line for every place and time that rows were measured at."""
    places: dict[str, list[str]] = {}
    for name, entry in found.items():
        place = entry["environment"]
        versions = ", ".join(f"{key} {value}" for key, value in place["versions"].items())
        busy = f", load {place['load']} before it began" if "load" in place else ""
        words = f"{place['device']}{busy}, {versions}, {place['date']}, commit {place['commit']}"
        places.setdefault(words, []).append(name)
    return [f"{place}: {', '.join(names)}." if len(places) > 1 else f"{place}." for place, names in places.items()]


NOTE = (
    f"{Size().chains} chains, {Size().warmup:,} warm-up steps and {Size().draws:,} draws each, all in one process and "
    f"in turns; medians of {REPEATS} calls, or as many as take {BUDGET:.0f} seconds. Counted are effective draws, the "
    f"smaller of bulk and tail of the worst number (of a variable with more than {MOST} numbers, so many are looked "
    "at), by the same code for all, for each second of warm-up and sampling together. Warm is a later call without "
    "what it compiles; NumPyro compiles in every call, which is taken out. The first call is in a process that has "
    "everything imported and nothing compiled; who comes first pays for what the others of its kind share, of ours "
    f"that is auto. Means are over posteriors where both have good draws: R-hat below {GOOD_RHAT}, more than "
    f"{GOOD_ESS} effective ones. NumPyro has its users' model where the posterior is one, else the log density, as "
    "BlackJAX does; nutpie calls that as a compiled function from Python, tens of microseconds a gradient that a "
    "model of PyMC or Stan does not take: compare the draws a gradient. All in this process have what `import "
    f"parsample` asks of XLA (small_loops.md). BlackJAX's HMC has {LEAPFROG_STEPS} leapfrog steps, its users' to "
    "choose. The published parallel method is quasi-Newton with Hutchinson's diagonal over the whole chain of MALA as "
    f"our warm-up leaves it; after {PUBLISHED_ITERATIONS} iterations the loop has the rest, so that its numbers are "
    "better than it would be alone. Gradients are those of the draws; in sequence: those that wait for each other, "
    "chains in step waiting for the longest trajectory."
)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw how many times as fast auto is as each family, one row a posterior."""
    figure, axes = plt.subplots(figsize=(7.5, 1.2 + 0.32 * len(found)), layout="constrained")
    names = list(found)[::-1]
    labels = ("the best fixed choice of ours", "NumPyro NUTS", "the best of BlackJAX", "nutpie", "the published method")
    for family, label, marker in zip(FAMILIES, labels, "s^ovD", strict=True):
        pairs = ratios(found, family, "rate")
        if pairs:
            places = [names.index(name) for name in pairs]
            (dots,) = axes.plot([ratio for ratio, _ in pairs.values()], places, marker, label=label, alpha=0.8)
            for place, (ratio, good) in zip(places, pairs.values(), strict=True):
                if not good:
                    axes.plot(ratio, place, marker, color="white", markeredgecolor=dots.get_color())
    axes.axvline(1.0, color="0.4", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel('effective draws a second, warm: method="auto" over the other (hollow: not both good)')
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    figure.savefig(path, dpi=130)
    plt.close(figure)
