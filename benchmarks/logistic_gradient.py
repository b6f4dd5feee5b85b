"""What value and gradient of a logistic regression's log density cost, written naively and as the targets write it.

    python benchmarks/logistic_gradient.py

Every variant runs in turn in one process, so that what else the machine does falls on all of them alike. Writes the
table `results/logistic_gradient.md` beside this file.
"""

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from parsample.targets import LogisticRegression

OURS, NAIVE, LAYOUT, PRODUCTS = "as the targets write it", "naive", "naive, dimensions first", "the two products alone"
STEPS = 1000


def variants(features: np.ndarray, labels: np.ndarray) -> dict[str, Callable]:
    """Return log densities of coefficients, on features with the intercept's column."""
    rows_first, is_one = jnp.asarray(features), jnp.asarray(labels, features.dtype)
    dimensions_first = jnp.asarray(features.T.copy())
    target = LogisticRegression(features, labels, intercept=False)

    def naive(coefficients):
        logits = rows_first @ coefficients
        return jnp.sum(is_one * logits - jax.nn.softplus(logits)) - 0.5 * coefficients @ coefficients

    def layout(coefficients):
        logits = coefficients @ dimensions_first
        return jnp.sum(is_one * logits - jax.nn.softplus(logits)) - 0.5 * coefficients @ coefficients

    def products(coefficients):
        logits = coefficients @ dimensions_first
        return 0.5 * logits @ logits - 0.5 * coefficients @ coefficients

    return {
        NAIVE: naive,
        LAYOUT: layout,
        OURS: lambda coefficients: target.logdensity({"coefficients": coefficients}),
        PRODUCTS: products,
    }


def loop(value_and_grad: Callable, steps: int) -> Callable:
    """Return a function that takes `steps` small steps along the gradient."""

    def body(coefficients, _):
        value, gradient = value_and_grad(coefficients)
        return coefficients + 1e-4 * gradient, value

    return lambda coefficients: jax.lax.scan(body, coefficients, None, length=steps)


def interleaved(
    functions: Mapping[str, Callable], argument: jax.Array, gradients: int, repeats: int
) -> dict[str, list]:
    """Return the microseconds a gradient of each repeat of each function, after one call to compile it."""
    for function in functions.values():
        jax.block_until_ready(function(argument))
    times: dict[str, list] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(argument))
            times[name].append((time.perf_counter() - start) / gradients * 1e6)
    return times


def errors(log_density: Callable, features: np.ndarray, labels: np.ndarray, points: np.ndarray) -> tuple[float, float]:
    """Return the largest error of the value relative to itself, and of the gradient relative to its largest entry."""
    values, gradients = jax.vmap(jax.value_and_grad(log_density))(jnp.asarray(points))
    points, features = points.astype(np.float64), features.astype(np.float64)
    logits = points @ features.T
    exact = np.sum(labels * logits - np.logaddexp(0, logits), axis=1) - 0.5 * np.sum(points**2, axis=1)
    residuals = labels - np.exp(-np.logaddexp(0, -logits))
    exact_gradients = residuals @ features - points
    # Constants of the prior are in one variant and not in the other: differences from the first point are compared.
    values = np.asarray(values, np.float64)
    value_error = np.max(np.abs((values[1:] - values[0]) - (exact[1:] - exact[0])) / np.abs(exact[1:]))
    gradient_error = np.max(np.abs(gradients - exact_gradients).max(1) / np.abs(exact_gradients).max(1))
    return float(value_error), float(gradient_error)


def measure(rows: int, dim: int, batch: int, repeats: int) -> list[tuple]:
    """Return a row of the table for each variant."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, dim)).astype(np.float32)
    features[:, 0] = 1
    labels = (rng.random(rows) < 0.3).astype(np.int64)
    points = (0.3 * rng.standard_normal((batch, dim))).astype(np.float32)
    densities = variants(features, labels)
    gradients = {name: jax.value_and_grad(density) for name, density in densities.items()}
    once = {name: jax.jit(jax.vmap(gradient)) for name, gradient in gradients.items()}
    batched = {name: jax.jit(loop(jax.vmap(gradient), 10)) for name, gradient in gradients.items()}
    single = {name: jax.jit(loop(gradient, STEPS)) for name, gradient in gradients.items()}
    columns = [
        interleaved(once, jnp.asarray(points), batch, repeats),
        interleaved(batched, jnp.asarray(points), 10 * batch, repeats),
        interleaved(single, jnp.asarray(points[0]), STEPS, repeats),
    ]
    table = []
    for name, density in densities.items():
        ratios = [np.median(np.array(column[NAIVE]) / np.array(column[name])) for column in columns]
        accuracy = None if name == PRODUCTS else errors(density, features, labels, points)
        table.append((name, [(np.median(column[name]), np.min(column[name])) for column in columns], ratios, accuracy))
    return table


def report(table: list[tuple], rows: int, dim: int, batch: int, repeats: int) -> str:
    """Return the table in Markdown."""
    device = jax.devices()[0]
    where = f"{device.device_kind}, {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind
    lines = [
        "# Value and gradient of a logistic regression",
        "",
        f"{rows:,} rows, {dim} coefficients, float32. Microseconds a gradient, median (least) of {repeats} repeats,",
        "variants in turn in one process; `x` is the median over repeats of naive / variant in the same repeat.",
        f"Batch: {batch:,} positions by `vmap`, in one call, and in a loop of 10 gradient steps, where memory is there",
        f"already. Sequential: {STEPS:,} gradient steps of one position.",
        "Errors are against double precision: of the value relative to itself, and of the gradient relative to its",
        "largest entry; the largest over the batch.",
        "",
        "| variant | batch, one call | x | batch, in a loop | x | sequential | x | value error | gradient error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, times, ratios, accuracy in table:
        pairs = zip(times, ratios, strict=True)
        cells = [cell for (median, least), ratio in pairs for cell in (f"{median:.2f} ({least:.2f})", f"{ratio:.1f}")]
        cells += [f"{error:.0e}" for error in accuracy] if accuracy else ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Device: {where} ({device.platform}, {platform.machine()}). Python {platform.python_version()}, "
        f"jax {jax.__version__}, jaxlib {jaxlib.__version__}. {datetime.date.today().isoformat()}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=25, help="coefficients, the intercept's included")
    parser.add_argument("--batch", type=int, default=1024, help="positions in a batch")
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "logistic_gradient.md")
    options = parser.parse_args()
    setting = (options.rows, options.dim, options.batch, options.repeats)
    text = report(measure(*setting), *setting)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
