"""Bayesian probit regression."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import Precision
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, Key

from parsample.targets.base import Position
from parsample.targets.logistic_regression import AbstractBinaryRegression, prepare
from parsample.targets.truncated_normal import positive_normal


class ProbitRegression(AbstractBinaryRegression):
    """Bayesian probit regression on given data; on a small synthetic set by default.

    P(label 1) = Phi(x^T b) with b_j ~ N(0, s^2). The variable of the trace is `coefficients`, its dimension `feature`.
    The log density is the normalised joint one of coefficients and labels.

    The `conditional_updates` are the data augmentation of Albert and Chib: for every row a latent normal variable of
    mean x^T b, truncated to the side of its label, then the coefficients given those. Latent variables are new in every
    sweep, so they are no part of the position.

    Attributes:
        signed_features: see `AbstractBinaryRegression`.
        prior_scale: see `AbstractBinaryRegression`.
        feature_names: see `AbstractBinaryRegression`.

    Source: Albert & Chib 1993, section 3; the truncated variables by inverse CDF are ours.
    """

    name: ClassVar[str] = "probit_regression"
    signed_features: Float[Array, "dim rows"]
    prior_scale: Float[Array, ""]
    feature_names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        features: Any = None,
        labels: Any = None,
        *,
        prior_scale: Any = 1.0,
        intercept: bool = True,
        standardize: bool = False,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        """Prepare the data. Arguments and errors are those of `LogisticRegression`."""
        self.signed_features, self.prior_scale, self.feature_names = prepare(
            features, labels, prior_scale, intercept, standardize, feature_names
        )

    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at `position["coefficients"]`, shape (dim,). Cost: O(rows dim)."""
        self.check_position(position)
        coefficients = position["coefficients"]
        return jnp.sum(log_ndtr(self.margins(coefficients))) + self.log_prior(coefficients)

    @property
    def conditional_updates(self) -> tuple[tuple[str, Callable, Callable], ...]:
        """The latent variables and the coefficients given them, in one update: (block, update, draw)."""
        # 1. The latent variables times the signs of their labels are positive; their means are the margins.
        # 2. Given them, v, the coefficients are normal with precision P = S S^T + I / s^2 and mean P^-1 S v.
        with jax.default_matmul_precision("highest"):
            precision = self.signed_features @ self.signed_features.T
        precision += jnp.eye(len(precision), dtype=precision.dtype) / self.prior_scale**2
        augmentation = _Augmentation(self, jnp.linalg.cholesky(precision))
        return (("coefficients", augmentation.update, augmentation.draw),)


class _Augmentation(eqx.Module):
    """The sweep of Albert and Chib, with the root of the precision of the coefficients given the latent variables."""

    target: ProbitRegression
    root: Float[Array, "dim dim"]

    def draw(self, rng_key: Key[Array, ""], num_steps: int, dtype: jnp.dtype) -> tuple[Array, Array]:
        key_latent, key_noise = jax.random.split(rng_key)
        dim, rows = self.target.signed_features.shape
        exponential = jax.random.exponential(key_latent, (num_steps, rows), dtype)
        return exponential, jax.random.normal(key_noise, (num_steps, dim), dtype)

    def update(self, position: Position, input: tuple[Array, Array]) -> Float[Array, "dim"]:
        exponential, noise = input
        latent = positive_normal(self.target.margins(position["coefficients"]), exponential)
        root, features = self.root.astype(noise.dtype), self.target.signed_features.astype(noise.dtype)
        mean = cho_solve((root, True), jnp.matmul(features, latent, precision=Precision.HIGHEST))
        return mean + solve_triangular(root, noise, lower=True, trans=1)
