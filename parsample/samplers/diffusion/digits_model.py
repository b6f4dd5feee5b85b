"""A small trained model: handwritten digits of 8 x 8 pixels.

`digits.npz` was written by

    python examples/train_digits.py --seed 0 --checkpoint parsample/samplers/diffusion/digits.npz

from scikit-learn's digits, four fifths of its 1,797 images (Alpaydin & Kaynak 1998, UCI "Optical recognition of
handwritten digits", CC BY 4.0).
"""

import functools
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from parsample.engine.options import is_number
from parsample.samplers.diffusion.denoisers import NormalDenoiser
from parsample.samplers.diffusion.exact import level_at
from parsample.samplers.diffusion.predictions import FROM, check_prediction
from parsample.samplers.diffusion.schedules import LinearBetas, Schedule

CHECKPOINT = Path(__file__).with_name("digits.npz")
# Pixels a side, pixels a side of a patch, patches of an image, and the label that says nothing.
SIDE, PATCH, PATCHES, NO_LABEL = 8, 2, 16, 10
# Log signal-to-noise ratios that the network was trained for.
REACH = 6.5


class Block(eqx.Module):
    """Mix the patches, then the channels; shift, scale and gate of both depend on noise level and label."""

    modulation: eqx.nn.Linear
    patches: tuple[eqx.nn.Linear, eqx.nn.Linear]
    channels: tuple[eqx.nn.Linear, eqx.nn.Linear]

    def __init__(self, width: int, known: int, rng_key: Key[Array, ""]):
        """Draw the weights; the modulation begins at 0, and the block as the identity."""
        keys = jax.random.split(rng_key, 5)
        fresh = eqx.nn.Linear(known, 6 * width, key=keys[0])
        self.modulation = jax.tree.map(jnp.zeros_like, fresh)
        self.patches = (
            eqx.nn.Linear(PATCHES, 4 * PATCHES, key=keys[1]),
            eqx.nn.Linear(4 * PATCHES, PATCHES, key=keys[2]),
        )
        self.channels = (eqx.nn.Linear(width, 2 * width, key=keys[3]), eqx.nn.Linear(2 * width, width, key=keys[4]))

    def __call__(self, h: Float[Array, "patches width"], about: Float[Array, " known"]) -> Array:
        """Return the next features."""
        shift, scale, gate, shift2, scale2, gate2 = jnp.split(self.modulation(about), 6)
        h = h + gate * _two_layers(self.patches, (normalise(h) * (1 + scale) + shift).T).T
        return h + gate2 * _two_layers(self.channels, normalise(h) * (1 + scale2) + shift2)


class DigitsNetwork(eqx.Module):
    """An MLP-Mixer over the 16 patches of an image, with the adaptive layer norms of DiT.

    Source: Tolstikhin et al. 2021 (the mixer); Peebles & Xie 2023 (DiT's conditioning).
    """

    embed: eqx.nn.Linear
    place: Float[Array, "patches width"]
    labels: Float[Array, "labels known"]
    time: tuple[eqx.nn.Linear, eqx.nn.Linear]
    blocks: tuple[Block, ...]
    last: eqx.nn.Linear

    def __init__(self, rng_key: Key[Array, ""], width: int = 96, known: int = 64, depth: int = 3):
        """Draw the weights."""
        keys = jax.random.split(rng_key, depth + 5)
        self.embed = eqx.nn.Linear(PATCH**2, width, key=keys[0])
        self.place = 0.1 * jax.random.normal(keys[1], (PATCHES, width))
        self.labels = 0.1 * jax.random.normal(keys[2], (NO_LABEL + 1, known))
        self.time = (eqx.nn.Linear(32, known, key=keys[3]), eqx.nn.Linear(known, known, key=keys[4]))
        self.blocks = tuple(Block(width, known, key) for key in keys[5:])
        self.last = jax.tree.map(jnp.zeros_like, eqx.nn.Linear(width, PATCH**2, key=keys[0]))

    def __call__(
        self, x: Float[Array, "side side"], log_ratio: Float[Array, ""], label: Int[Array, ""]
    ) -> Float[Array, "side side"]:
        """Return v = alpha noise - sigma x0 for an image of alpha^2 + sigma^2 = 1 with this log(alpha / sigma)."""
        angles = jnp.clip(log_ratio, -REACH, REACH) * jnp.asarray(np.geomspace(0.1, 4, 16), x.dtype)
        features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
        about = jax.nn.silu(_two_layers(self.time, features) + self.labels[label])
        count = SIDE // PATCH
        patches = x.reshape(count, PATCH, count, PATCH).transpose(0, 2, 1, 3).reshape(PATCHES, PATCH**2)
        h = _each(self.embed, patches) + self.place
        for block in self.blocks:
            h = block(h, about)
        out = _each(self.last, normalise(h)).reshape(count, count, PATCH, PATCH)
        return out.transpose(0, 2, 1, 3).reshape(SIDE, SIDE)


def normalise(h: Float[Array, "patches width"]) -> Float[Array, "patches width"]:
    """Return features of mean 0 and variance 1."""
    away = h - h.mean(-1, keepdims=True)
    return away * jax.lax.rsqrt((away**2).mean(-1, keepdims=True) + 1e-5)


def _each(layer: eqx.nn.Linear, rows: Array) -> Array:
    assert layer.bias is not None
    return rows @ layer.weight.T + layer.bias


def _two_layers(layers: tuple[eqx.nn.Linear, eqx.nn.Linear], rows: Array) -> Array:
    return _each(layers[1], jax.nn.gelu(_each(layers[0], rows)))


class DigitsModel(eqx.Module):
    """A trained model of handwritten digits, 8 x 8 pixels from -1 (paper) to 1 (ink), for any schedule.

    `model(x, t)` draws any digit, `model(x, t, label)` the one that is asked for: `DDIM(model, condition=3)`. The
    network knows the noise by the ratio of signal and noise, so that one checkpoint serves every schedule.

    Attributes:
        sigma_data: for processes that draw digits: with it `scaled_identity` needs the fewest rounds.
        normal: normal data with the mean and the covariance of the digits, to be a process's `surrogate`.

    Args:
        schedule: whose times it is called with.
        prediction: what it predicts, such as "noise".
        guidance: of a label: 0 for the model's own distribution, more for digits that look more like their label.
        network: in place of the one that ships with the package.

    Raises:
        ValueError: an argument is not what it should be.

    Source: Ho & Salimans 2022 for guidance without a classifier: (1 + guidance) times the prediction with the label
    minus guidance times the one without.
    """

    sigma_data: ClassVar[float] = 0.25

    schedule: Schedule
    prediction: str = eqx.field(static=True)
    guidance: float = eqx.field(static=True)
    network: DigitsNetwork

    def __init__(
        self,
        schedule: Schedule | None = None,
        prediction: str = "noise",
        guidance: Any = 0.0,
        network: DigitsNetwork | None = None,
    ):
        """Check the arguments and read the checkpoint."""
        check_prediction(prediction)
        if not (is_number(guidance) and 0 <= guidance < float("inf")):
            raise ValueError(f"guidance is {guidance!r}, expected a finite number of at least 0, such as 1.")
        self.schedule = LinearBetas() if schedule is None else schedule
        self.prediction, self.guidance = prediction, float(guidance)
        self.network = load(CHECKPOINT) if network is None else network

    @property
    def normal(self) -> NormalDenoiser:
        """The surrogate of the model, for a guess."""
        return load_normal(CHECKPOINT)

    def __call__(self, x: Float[Array, "side side"], t: Array, label: Any = NO_LABEL) -> Float[Array, "side side"]:
        """Return the prediction for an image at a time."""
        if x.shape != (SIDE, SIDE):
            raise ValueError(
                f"x has shape {x.shape}, expected ({SIDE}, {SIDE}): the digits have {SIDE} x {SIDE} pixels."
            )
        alpha, sigma = (value.astype(x.dtype) for value in level_at(self.schedule, t, x.dtype))
        # The network sees a sample whose signal and noise are scaled to alpha^2 + sigma^2 = 1, and runs in float32.
        size = jnp.sqrt(alpha**2 + sigma**2)
        seen = (x / size).astype(jnp.float32)
        # Kept away from 0, where a schedule has no noise or no signal at all: beyond that the network is not told.
        tiny = jnp.finfo(x.dtype).tiny
        ratio = (jnp.log(jnp.maximum(alpha, tiny)) - jnp.log(jnp.maximum(sigma, tiny))).astype(jnp.float32)
        v = self.network(seen, ratio, jnp.asarray(label))
        if self.guidance:
            v = (1 + self.guidance) * v - self.guidance * self.network(seen, ratio, jnp.asarray(NO_LABEL))
        v = v.astype(x.dtype)
        x0, noise = (alpha * x / size - sigma * v) / size, (sigma * x / size + alpha * v) / size
        return FROM[self.prediction](x0, noise, alpha, sigma)


def save(path: Path, network: DigitsNetwork, normal: NormalDenoiser) -> None:
    """Write the weights, in half precision, and the mean, the directions and the variances of the digits."""
    leaves: dict[str, Any] = {
        f"{i:02}": np.asarray(leaf, np.float16) for i, leaf in enumerate(jax.tree.leaves(network))
    }
    for name in ("mean", "vectors", "variances", "rest"):
        leaves[name] = np.asarray(getattr(normal, name), np.float32)
    np.savez_compressed(path, **leaves)


@functools.cache
def load(path: Path) -> DigitsNetwork:
    """Read the weights that `save` wrote."""
    like = eqx.filter_eval_shape(DigitsNetwork, jax.random.key(0))
    with np.load(path) as file, jax.ensure_compile_time_eval():
        leaves = [jnp.asarray(file[name], jnp.float32) for name in sorted(file.files) if name.isdigit()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


@functools.cache
def load_normal(path: Path) -> NormalDenoiser:
    """Read what `save` wrote about the digits themselves."""
    with np.load(path) as file, jax.ensure_compile_time_eval():
        return NormalDenoiser(file["mean"], file["vectors"], file["variances"], float(file["rest"]))
