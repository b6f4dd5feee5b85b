"""Densities for tests of samplers: some that end where the chain might go, and one that counts its calls."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Densities whose value or gradient is not a finite number at -0.5 and below, and is one at 0, where the chain stands.
HOLES = {
    "value nan": lambda x: jnp.where(x[0] < -0.5, jnp.nan, -0.5 * x @ x),
    "value -inf": lambda x: jnp.where(x[0] < -0.5, -jnp.inf, -0.5 * x @ x),
    "value +inf": lambda x: jnp.where(x[0] < -0.5, jnp.inf, -0.5 * x @ x),
    "gradient nan": lambda x: jnp.sqrt(jnp.maximum(x[0] + 0.5, 0)) - 0.5 * x @ x,
    "log of a negative number": lambda x: jnp.log(x[0] + 0.5) - 0.5 * x @ x,
}


def counted(density: Callable) -> tuple[Callable, list[int]]:
    """A density that counts how often its value is computed, with or without its gradient."""
    calls: list[int] = []

    def count():
        jax.debug.callback(lambda: calls.append(1))

    @jax.custom_vjp
    def counting(x):
        count()
        return density(x)

    def forward(x):
        count()
        return jax.vjp(density, x)

    counting.defvjp(forward, lambda pullback, cotangent: pullback(cotangent))
    return counting, calls


def without_a_derivative(density: Callable) -> Callable:
    """The density, and an error where it is differentiated in reverse, as every sampler with a gradient does."""

    @jax.custom_vjp
    def value(x):
        return density(x)

    def forward(x):
        raise AssertionError("the gradient was asked for")

    value.defvjp(forward, lambda pullback, cotangent: pullback(cotangent))
    return value
