"""What a target is: a log density in unconstrained coordinates, and the names under which draws go into the trace."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from parsample.engine.fixed import once

Position = dict[str, Array]

# What an entry of a position is of the variable that its name goes on with: `log_scale` of `scale`.
INVERSES: dict[str, Callable[[Array], Array]] = {"log": jnp.log, "logit": jax.scipy.special.logit}


class Target(eqx.Module):
    """A log density to sample from.

    A concrete target gives `name`, `logdensity` and `position_template`; what else it has to say goes into the hooks
    below them. It may also have `hessian_diagonal(position, basis)`, shape (k,): the diagonal of B^T H B, where H is
    the Hessian of the log density in the coordinates that `jax.flatten_util.ravel_pytree` makes of a position, and the
    columns of `basis`, shape (dim, k), are directions in those coordinates; and `around(position, basis)`, the log
    density as a function of z at the position plus basis z, where it is rounded less that way. For Gibbs sampling it
    may have `conditional_updates`, tuples (block, update, draw) as `parsample.samplers.gibbs.Conditional` has them; for
    warm-up to centre its effects `centred` and `effects(position)`, as `parsample.targets.centring` has them; for
    samplers on minibatches `num_data` and `minibatch(position, indices)`, as `parsample.samplers.sgld.Minibatches` has
    them; for the groups of a trace that are made on request `log_likelihood`, `posterior_predictive` and `prior`, as
    `parsample.targets.NumPyroModel` has them.

    Arguments of constructors are concrete numbers. A target is a pytree of its parameters: to differentiate in one,
    differentiate in the target.
    """

    # The row of the target in `TARGETS`.
    name: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def logdensity(self, position: Position) -> Float[Array, ""]:
        """Return the log density at an unconstrained position, log-Jacobians included, in the position's dtype."""

    @abc.abstractmethod
    def position_template(self) -> Position:
        """Return zeros with the names, shapes and dtypes of a position."""

    def initial_position(self, rng_key: Key[Array, ""]) -> Position:
        """Draw a start: uniform on (-2, 2) in every unconstrained coordinate, as Stan does."""
        vector, unravel = ravel_pytree(self.position_template())
        return unravel(jax.random.uniform(rng_key, vector.shape, vector.dtype, -2.0, 2.0))

    def constrain(self, position: Position) -> dict[str, Array]:
        """Return the named values of one draw that go into the trace, derived ones included."""
        return position

    def start_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name the values that `unconstrain` takes: the variables of the trace that a position is made of.

        Here: the entries of the position; but where one is called `log_` or `logit_` and a variable, that variable.
        """
        template = position_shapes(self)
        return {name: template[entry] for name, (entry, _) in self._entries().items()}

    def unconstrain(self, values: Mapping[str, Array], rng_key: Key[Array, ""]) -> Position:
        """Return a position with given values; the inverse of `constrain`.

        Args:
            values: by the names of `start_shapes`, all or some, in the variables' own coordinates.
            rng_key: for what is not among them, which is where `initial_position` puts it.

        Returns:
            The position, not finite where a value is outside of the variable's support.
        """
        position = self.initial_position(rng_key)
        entries = {name: row for name, row in self._entries().items() if name in values}
        return {**position, **{entry: inverse(values[name]) for name, (entry, inverse) in entries.items()}}

    def _entries(self) -> dict[str, tuple[str, Callable[[Array], Array]]]:
        """Return variable -> entry of the position, and the function from one to the other."""
        variables = jax.eval_shape(lambda: self.constrain(self.position_template()))
        found: dict[str, tuple[str, Callable[[Array], Array]]] = {}
        for entry in position_shapes(self):
            prefix, _, name = entry.partition("_")
            inverse = INVERSES.get(prefix) if entry not in variables and name in variables else None
            found |= {entry: (entry, lambda value: value)} if inverse is None else {name: (entry, inverse)}
        return found

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimensions of each variable of the trace that has any."""
        return {}

    @property
    def group_dims(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Name, by group, the dimensions of variables that have others in that group than `dims` says."""
        return {}

    @property
    def coords(self) -> dict[str, Sequence]:
        """Label the entries of the dimensions that have labels."""
        return {}

    @property
    def observed_data(self) -> dict[str, Any]:
        """The data that the likelihood is about, by name, for the group of that name."""
        return {}

    @property
    def constant_data(self) -> dict[str, Any]:
        """The data that it is given, covariates say, by name, for the group of that name."""
        return {}

    def moments(self) -> dict[str, tuple[Array, Array]] | None:
        """Return mean and standard deviation of each variable of the trace, or None where no closed form is known."""
        return None

    def suspects(self) -> str:
        """Say what in the data may keep chains from starting, after a comma; nothing where nothing is known."""
        return ""

    def check_position(self, position: Position) -> None:
        """Compare a position with the template. It costs nothing at run time: only names, shapes and dtypes are read.

        Args:
            position: what a log density is about to be evaluated at.

        Raises:
            ValueError: a name is missing or unknown, a shape differs, or a dtype is not a floating one.
        """
        template = position_shapes(self)
        if set(position) != set(template):
            raise ValueError(
                f"position has the entries {sorted(position)}, expected {sorted(template)} for the target {self.name}."
            )
        for key, expected in template.items():
            value = position[key]
            if np.shape(value) != expected.shape:
                raise ValueError(f"position[{key!r}] has shape {np.shape(value)}, expected {expected.shape}.")
            if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
                raise ValueError(
                    f"position[{key!r}] has dtype {jnp.result_type(value)}, expected a floating one such as float32."
                )


@once
def position_shapes(target: Target) -> Any:
    """Return the names, shapes and dtypes of a position, a pytree of `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(target.position_template)


class AbstractVector(Target):
    """A target that has the vector `x` in position and trace, its coordinates numbered from 0."""

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Name the dimension of x."""
        return {"x": ("coordinate",)}

    @property
    def coords(self) -> dict[str, Sequence]:
        """Number the coordinates of x."""
        return {"coordinate": range(position_shapes(self)["x"].size)}


def check_basis(basis: Array, dim: int) -> None:
    """Raise ValueError unless the columns of a basis are directions in `dim` coordinates."""
    if np.ndim(basis) != 2 or basis.shape[0] != dim:
        raise ValueError(f"basis has shape {np.shape(basis)}, expected ({dim}, k): one direction a column.")
