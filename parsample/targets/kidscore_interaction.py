"""Children's test scores by their mothers' schooling and IQ."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from parsample.targets import checks, json_data
from parsample.targets.base import Position
from parsample.targets.densities import half_cauchy_of_log
from parsample.targets.linear_likelihood import AbstractLinearRegression, LinearLikelihood

POSTERIOR = "kidiq-kidscore_interaction"


class KidscoreInteraction(AbstractLinearRegression):
    """Linear regression of children's test scores with an interaction, posteriordb's kidiq; needs its file as `data`.

    kid_score ~ N(beta_1 + beta_2 mom_hs + beta_3 mom_iq + beta_4 mom_hs mom_iq, sigma^2), beta flat,
    sigma ~ HalfCauchy(2.5). Unconstrained are beta and log_sigma; in the trace are `beta` and `sigma`. Columns are
    taken as they are, so that the coefficients differ in scale by a hundred and are nearly collinear.

    Attributes:
        likelihood: of the scores.

    Source: Gelman & Hill 2007, section 3.3; posteriordb's kidiq-kidscore_interaction.
    """

    name: ClassVar[str] = "kidscore_interaction"
    likelihood: LinearLikelihood

    def __init__(self, data: Any = None) -> None:
        """Read the data.

        Args:
            data: a mapping or the path of a JSON file, with kid_score, mom_hs and mom_iq, one number a child, and
                perhaps N.

        Raises:
            ValueError: no data are given, they cannot be read, an entry is missing or not finite, or sizes differ.
        """
        entries = json_data.read(data, POSTERIOR, "kid_score", "mom_hs", "mom_iq")
        score, schooling, iq = (json_data.real(entries, key, "children") for key in ("kid_score", "mom_hs", "mom_iq"))
        json_data.check_size(entries, "N", "kid_score", score.size)
        checks.same_size("data['mom_hs']", schooling, "data['kid_score']", score.size)
        checks.same_size("data['mom_iq']", iq, "data['kid_score']", score.size)
        design = np.column_stack([np.ones_like(iq), schooling, iq, schooling * iq])
        self.likelihood = LinearLikelihood(design, score, checks.float_dtype(entries["kid_score"]))

    def coefficients(self, position: Position) -> Float[Array, "4"]:
        """Return beta."""
        return position["beta"]

    def log_prior(self, position: Position) -> Float[Array, ""]:
        """Return the log density of the prior of log_sigma; that of beta is flat."""
        return half_cauchy_of_log(position["log_sigma"], 2.5)

    def initial_position(self, rng_key: Key[Array, ""]) -> Position:
        """Draw a start: beta uniform on (-2, 2), and sigma as large as the residuals are there."""
        # Such beta leave residuals of about a hundred points. With a sigma of about 1 the density is so steep there
        # that warm-up ends with steps too small to move.
        start = super().initial_position(rng_key)
        return {**start, "log_sigma": self.likelihood.log_spread(start["beta"])}

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return beta and sigma."""
        return {"beta": position["beta"], "sigma": jnp.exp(position["log_sigma"])}

    def position_template(self) -> Position:
        """Return zeros: beta, shape (4,), and log_sigma, a scalar."""
        zeros = jnp.zeros(4, self.likelihood.triangle.dtype)
        return {"beta": zeros, "log_sigma": zeros[0]}

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimension of beta."""
        return {"beta": ("column",)}

    @property
    def coords(self) -> dict[str, Sequence]:
        """Label the coefficients with what they multiply."""
        return {"column": ["intercept", "mom_hs", "mom_iq", "mom_hs:mom_iq"]}
