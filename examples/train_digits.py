"""Train the model of handwritten digits that ships with parsample, and draw digits from it.

    python examples/train_digits.py --seed 0 --checkpoint parsample/samplers/diffusion/digits.npz

wrote the checkpoint. An MLP-Mixer with the conditioning of DiT, 239,540 weights, learns v = alpha noise - sigma x0 on
four fifths of scikit-learn's 1,797 images of 8 x 8 pixels; a tenth of the time it is not told the label, so that it can
draw any digit, or the one that is asked for. The weights that are kept are an average over the last steps. The fifth
that is left out shows when learning turns into learning by heart. Ends in a figure of digits and a table of losses.
"""

import argparse
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax  # type: ignore[import-untyped]
from jaxtyping import Array
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits

import parsample as ps
from parsample.samplers.diffusion.digits_model import NO_LABEL, REACH, DigitsModel, DigitsNetwork, save

BATCH, WITHOUT_LABEL, WEIGHT_DECAY, AVERAGE = 128, 0.1, 0.01, 0.998
CHUNK = 50  # steps of training in one call


def images() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return images from -1 to 1 and their labels: those to learn from, and every fifth, which is left out."""
    data = load_digits()
    x, labels = (data.images / 8 - 1).astype(np.float32), data.target.astype(np.int32)
    left_out = np.arange(len(x)) % 5 == 0
    return (x[~left_out], labels[~left_out]), (x[left_out], labels[left_out])


def loss(network: DigitsNetwork, x0: Array, labels: Array, rng_key: Any) -> Array:
    """Return the mean square error of v, at angles atan(sigma / alpha) even between 0 and 90 degrees, most of them."""
    first, second, third, fourth = jax.random.split(rng_key, 4)
    count = len(x0)
    # One image of each stratum of angles, so that the noise of the loss is small.
    angle = (jnp.arange(count) + jax.random.uniform(first, (count,))) / count * (jnp.pi / 2)
    ratio = jnp.clip(-jnp.log(jnp.tan(angle)), -REACH, REACH)
    # A fifth spread evenly over the logarithm, where little noise is left or little signal.
    ratio = jnp.where(
        jnp.arange(count) % 5 == 0, jax.random.uniform(second, (count,), minval=-REACH, maxval=REACH), ratio
    )
    alpha, sigma = (
        jnp.sqrt(jax.nn.sigmoid(2 * ratio))[:, None, None],
        jnp.sqrt(jax.nn.sigmoid(-2 * ratio))[:, None, None],
    )
    noise = jax.random.normal(third, x0.shape)
    labels = jnp.where(jax.random.uniform(fourth, (count,)) < WITHOUT_LABEL, NO_LABEL, labels)
    v = jax.vmap(network)(alpha * x0 + sigma * noise, ratio, labels)
    return jnp.mean((v - (alpha * noise - sigma * x0)) ** 2)


def train(seed: int, steps: int, rate: float) -> tuple[DigitsNetwork, list[tuple[int, float, float]]]:
    """Return the averaged network, and rows of (step, loss, loss of the average on what was left out)."""
    (x, labels), (x_left, labels_left) = images()
    key = jax.random.key(seed)
    network = DigitsNetwork(jax.random.fold_in(key, 0))
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, min(200, steps // 2), steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=WEIGHT_DECAY))

    @jax.jit
    def learn(carry: tuple, numbers: Array) -> tuple[tuple, Array]:
        def step(carry: tuple, number: Array) -> tuple[tuple, Array]:
            network, average, memory = carry
            first, second = jax.random.split(jax.random.fold_in(key, number + 1))
            rows = jax.random.choice(first, len(x), (BATCH,), replace=False)
            value, gradient = jax.value_and_grad(loss)(network, jnp.asarray(x)[rows], jnp.asarray(labels)[rows], second)
            updates, memory = optimiser.update(gradient, memory, network)
            network = optax.apply_updates(network, updates)
            decay = jnp.minimum(AVERAGE, (1 + number) / (10 + number))
            average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, network)
            return (network, average, memory), value

        return jax.lax.scan(step, carry, numbers)

    judge = jax.jit(
        lambda network: loss(network, jnp.asarray(x_left), jnp.asarray(labels_left), jax.random.fold_in(key, 0))
    )
    carry, rows = (network, network, optimiser.init(eqx.filter(network, eqx.is_array))), []
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=steps, loss="")
        for first in range(0, steps, CHUNK):
            numbers = jnp.arange(first, min(first + CHUNK, steps))
            carry, values = learn(carry, numbers)
            rows.append((int(numbers[-1]) + 1, float(values.mean()), float(judge(carry[1]))))
            progress.update(task, completed=rows[-1][0], loss=f"loss {rows[-1][1]:.4f}, left out {rows[-1][2]:.4f}")
    return carry[1], rows


def draw(images: np.ndarray, path: Path) -> None:
    """Write a grid of images, ten a row."""
    figure = matplotlib.figure.Figure(figsize=(6, 0.6 * len(images) / 10), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, image in zip(figure.subplots(len(images) // 10, 10).flat, images, strict=True):
        axes.imshow(image, cmap="gray_r", vmin=-1, vmax=1)
        axes.set_axis_off()
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=2e-3, help="of learning, at its largest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=5, help="of digits in the figure")
    parser.add_argument("--output", type=Path, default=Path("digits.png"))
    parser.add_argument("--checkpoint", type=Path, help="where the weights go; beside the figure by default")
    options = parser.parse_args(arguments)
    network, losses = train(options.seed, options.steps, options.rate)
    checkpoint = options.checkpoint or options.output.with_suffix(".npz")
    normal = ps.samplers.diffusion.NormalDenoiser.fit(images()[0][0])
    save(checkpoint, network, normal)
    table = Table("step", "loss", "loss on what was left out", box=None)
    for row in losses[:: max(1, len(losses) // 10)] + losses[-1:]:
        table.add_row(f"{row[0]}", f"{row[1]:.4f}", f"{row[2]:.4f}")
    Console(width=110).print(table)
    schedule = ps.samplers.diffusion.LinearBetas()
    model = DigitsModel(schedule, network=network)
    process = ps.samplers.diffusion.DDIM(model, schedule, 50, sigma_data=model.sigma_data, surrogate=normal)
    columns = []
    for label in range(10):
        labelled = eqx.tree_at(lambda p: p.condition, process, jnp.asarray(label), is_leaf=lambda leaf: leaf is None)
        columns.append(ps.diffuse(labelled, (8, 8), options.rows, seed=label))
    draw(np.stack([out.samples for out in columns], 1).reshape(-1, 8, 8), options.output)
    residual = max(float(out.solution.residual.max()) for out in columns)
    rounds = max(int(out.rounds.max()) for out in columns)
    print(f"{10 * options.rows} digits in {rounds} rounds of DDIM's 50 steps; largest residual {residual:.1g}")
    count, size = sum(leaf.size for leaf in jax.tree.leaves(network)), checkpoint.stat().st_size / 1e6
    print(f"{count:,} weights: {checkpoint}, {size:.2f} MB; figure: {options.output}")


if __name__ == "__main__":
    main()
