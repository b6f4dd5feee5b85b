"""The group word problem over S5: multiply out a long word of permutations, in parallel over its letters.

    python examples/word_problem.py --output word_problem.png

The state is an arrangement of five objects, the inputs are random permutations of five places. The transition is linear
with a permutation matrix as its Jacobian, so Newton's matrices are exact: one iteration, and one that verifies. The
method `permutation` finds the same matrices in compact form, O(T D) numbers where Newton's are O(T D^2). A diagonal,
the identity or nothing in place of a permutation gains hardly more than a step an iteration. With `--regular` the state
is an element of the group instead, one of 120 written as a one-hot vector, where the difference in memory is larger.

Source: Gonzalez et al. 2025, "A unifying framework for parallelizing sequential models with linear dynamical systems",
figure 1, where the matrices are dense; the compact form and its memory are added here. The slow methods are run on
short words only. Ends in a figure and a table.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

import parsample as ps
from parsample.engine.iteration import Steps
from parsample.engine.transition import as_transition, flatten

GROUP = np.array(list(itertools.permutations(range(5))))
# Newton without projection: a permutation has norm 1, and rounding it to slightly less would add up over the word.
METHODS: dict[str, tuple[Any, dict]] = {
    "newton": (ps.methods.Newton(), {"conditioning": ps.Conditioning(projection=False)}),
    "permutation": (ps.methods.Permutation(), {}),
    "quasi_newton": (ps.methods.QuasiNewton(estimator="exact"), {}),
    "picard": (ps.methods.Picard(), {}),
    "jacobi": (ps.methods.Jacobi(), {}),
}
FAST = ("newton", "permutation")
COLORS = {name: f"C{k}" for k, name in enumerate(METHODS)}


class Row(NamedTuple):
    """What a method made of a word of some length."""

    method: str
    steps: int
    iterations: int
    converged: bool
    residual: float
    difference: float
    bytes: int


def problem(regular: bool) -> tuple[Callable, jax.Array, np.ndarray]:
    """Return the transition, the initial state, and for each element of the group its input."""
    if not regular:
        return lambda state, places: state[places], jnp.arange(5.0), GROUP
    # Row g of the table holds, for each element, the one that g takes to it.
    number = {tuple(element): k for k, element in enumerate(GROUP)}
    table = np.array([[number[tuple(h[np.argsort(g)])] for h in GROUP] for g in GROUP])
    return lambda state, letter: state[jnp.asarray(table)[letter]], jnp.zeros(120).at[0].set(1.0), np.arange(120)


def matrix_bytes(method: Any, transition: Callable, start: jax.Array, inputs: jax.Array) -> int:
    """Return the memory of the matrices A[t] of a whole word, as the method makes them."""
    flat, initial, steps = flatten(as_transition(transition), start, inputs)
    where = Steps(jnp.broadcast_to(initial, (steps, initial.size)), inputs, None, jax.random.key(0))
    matrices = jax.eval_shape(lambda: method.linearise(flat, where)).matrices
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(matrices))


def solve(lengths: list[int], slow_steps: int, regular: bool, largest_bytes: int) -> list[Row]:
    """Multiply out words of several lengths by every method."""
    transition, start, elements = problem(regular)
    letters = np.random.default_rng(0).integers(120, size=max(lengths))
    rows = []
    for steps in lengths:
        inputs = jnp.asarray(elements[letters[:steps]])
        loop = ps.evaluate_sequential(transition, start, inputs)
        for name, (method, options) in METHODS.items():
            size = matrix_bytes(method, transition, start, inputs)
            if (name not in FAST and steps > slow_steps) or size > largest_bytes:
                continue
            solution = ps.evaluate(transition, start, inputs, method=method, throw=False, **options)
            difference = float(np.max(np.abs(solution.states - loop.states)))
            verdict = int(solution.iterations), bool(solution.converged), float(solution.residual.max())
            rows.append(Row(name, steps, *verdict, difference, size))
    return rows


def draw(rows: list[Row], path: Path, dim: int) -> None:
    """Plot the iterations and the memory of the matrices against the length of the word."""
    figure = matplotlib.figure.Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    lengths = sorted({row.steps for row in rows})
    left.loglog(lengths, lengths, ":", color="grey", lw=1.2, label="as many as letters")
    for name in METHODS:
        steps = [row.steps for row in rows if row.method == name]
        style = "--" if name == "permutation" else "-"
        line = {"marker": "o", "ms": 4, "lw": 1.6, "ls": style, "color": COLORS[name], "label": name}
        left.loglog(steps, [row.iterations for row in rows if row.method == name], **line)
    for regular, marker in ((False, "o"), (True, "s")):
        transition, start, elements = problem(regular)
        for name, style in zip(FAST, ("-", "--"), strict=True):
            words = [jnp.broadcast_to(jnp.asarray(elements[0]), (steps, *elements[0].shape)) for steps in lengths]
            sizes = [matrix_bytes(METHODS[name][0], transition, start, word) for word in words]
            label = f"{name}, dimension {start.size}"
            right.loglog(lengths, sizes, marker=marker, ms=4, lw=1.6, ls=style, color=COLORS[name], label=label)
    left.set_ylabel("iterations, the verifying one included")
    left.set_title(f"Word problem over S5, state of dimension {dim}", loc="left", fontsize=11)
    right.set_ylabel("bytes of the matrices A")
    right.set_title("Memory of the two exact methods", loc="left", fontsize=11)
    right.set_ylim(top=1e11)
    for axes in (left, right):
        axes.set_xlabel("length of the word")
        axes.legend(frameon=False, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> Table:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 300, 1000, 3000, 10_000, 30_000])
    parser.add_argument("--slow-steps", type=int, default=1000, help="longest word for the methods that are not exact")
    parser.add_argument("--regular", action="store_true", help="one-hot vectors of 120 instead of arrangements of 5")
    parser.add_argument("--largest-bytes", type=int, default=10**9, help="leave a method out above this much memory")
    parser.add_argument("--output", type=Path, default=Path("word_problem.png"))
    options = parser.parse_args(arguments)
    rows = solve(options.steps, options.slow_steps, options.regular, options.largest_bytes)
    table = Table("steps", "method", "iterations", "matrices", "largest residual", "difference from the loop", box=None)
    for row in rows:
        iterations = f"{row.iterations}" if row.converged else f"{row.iterations}, not converged"
        numbers = decimal(row.bytes), f"{row.residual:.1g}", f"{row.difference:.1g}"
        table.add_row(str(row.steps), row.method, iterations, *numbers)
    Console(width=110).print(table)
    draw(rows, options.output, 120 if options.regular else 5)
    print(f"figure: {options.output}")
    return table


if __name__ == "__main__":
    main()
