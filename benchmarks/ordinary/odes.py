"""Ordinary differential equations, solved by Runge and Kutta's method with fixed steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.ordinary.problem import Problem


def solve(field: Callable, start: Any, step: float, num_steps: int, every: int) -> Any:
    """Return the states after every so many steps of the classical method of order four."""

    def advance(state: Any, _: Any) -> tuple[Any, Any]:
        k1 = field(state)
        k2 = field(state + step / 2 * k1)
        k3 = field(state + step / 2 * k2)
        k4 = field(state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state, state

    return jax.lax.scan(advance, start, length=num_steps)[1][every - 1 :: every]


def lotka_volterra() -> Problem:
    """Hares and lynxes, 1900 to 1920, with the priors of Stan's case study."""
    hare = [
        *(30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1),
        *(40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7),
    ]
    lynx = [
        *(4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4),
        *(8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6),
    ]

    def model(pelts: Any) -> None:
        start = numpyro.sample("start", dist.LogNormal(jnp.log(10.0), 1).expand([2]).to_event(1))
        theta = numpyro.sample(
            "theta",
            dist.TruncatedNormal(
                jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05]), low=0.0
            ).to_event(1),
        )
        sigma = numpyro.sample("sigma", dist.LogNormal(-1, 1).expand([2]).to_event(1))

        def field(state: Any) -> Any:
            u, v = state
            return jnp.stack([(theta[0] - theta[1] * v) * u, (-theta[2] + theta[3] * u) * v])

        states = jnp.concatenate([start[None], solve(field, start, 0.25, 80, 4)])
        numpyro.sample("pelts", dist.LogNormal(jnp.log(states), sigma), obs=pelts)

    return model, (np.column_stack([hare, lynx]),), {}


def sir() -> Problem:
    """Boys in bed in a school of 763 over two weeks, negative binomial."""
    in_bed = np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4])

    def model(in_bed: Any) -> None:
        beta = numpyro.sample("beta", dist.TruncatedNormal(2, 1, low=0.0))
        gamma = numpyro.sample("gamma", dist.TruncatedNormal(0.4, 0.5, low=0.0))
        phi_inv = numpyro.sample("phi_inv", dist.Exponential(5))
        numpyro.deterministic("R0", beta / gamma)

        def field(state: Any) -> Any:
            infections = beta * state[0] * state[1] / 763
            return jnp.stack([-infections, infections - gamma * state[1]])

        states = solve(field, jnp.array([762.0, 1.0]), 0.25, 56, 4)
        numpyro.sample("in_bed", dist.NegativeBinomial2(states[:, 1], 1 / phi_inv), obs=in_bed)

    return model, (in_bed,), {}


def one_compartment() -> Problem:
    """A drug taken by mouth by eight people: absorption, clearance and volume of each, not centred."""
    rng = np.random.default_rng(60)
    ka, clearance, volume = (rng.lognormal(mean, 0.25, (8, 1)) for mean in np.log([1.5, 2.5, 30.0]))
    hour = np.array([1.0, 2, 4, 6, 9, 12, 18, 24])
    ke = clearance / volume
    mean = 320 / volume * ka / (ka - ke) * (np.exp(-ke * hour) - np.exp(-ka * hour))
    concentration = rng.lognormal(np.log(mean), 0.15)

    def model(at: Any, concentration: Any) -> None:
        prior = dist.Normal(jnp.log(jnp.array([1.0, 3.0, 30.0])), 1.0).to_event(1)
        typical = numpyro.sample("typical", prior)
        spread = numpyro.sample("spread", dist.HalfNormal(0.5).expand([3]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
        raw = numpyro.sample("raw", dist.Normal(0, 1).expand([8, 3]).to_event(2))
        ka, clearance, volume = jnp.exp(typical + spread * raw).T

        def field(state: Any) -> Any:
            absorbed = ka * state[0]
            return jnp.stack([-absorbed, absorbed - clearance / volume * state[1]])

        states = solve(field, jnp.stack([jnp.full(8, 320.0), jnp.zeros(8)]), 0.5, 48, 1)
        mean = states[at, 1].T / volume[:, None]
        numpyro.sample("concentration", dist.LogNormal(jnp.log(mean + 1e-3), sigma), obs=concentration)

    return model, ((2 * hour).astype(int) - 1, concentration), {}
