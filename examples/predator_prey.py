"""A solver that is not JAX on a cluster: hares and lynxes by scipy, two Dask workers on this machine.

    python examples/predator_prey.py --output predator_prey.png

The model is `scipy.integrate.solve_ivp`, told to be exact, and knows nothing of JAX. Its priors are a NumPyro model; a
proposal outside of them is never run. Chains are run ahead on a Dask cluster of two worker processes, or, where
`distributed` is not installed (`pip install "parsample[dask]"`), on two processes of parsample's own. Ends in a figure
of the posterior: the rates, and the populations that they make beside the data.

Data: pelts of hares and lynxes of the Hudson's Bay Company, 1900 to 1920, in thousands (Howard 2009).
"""

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.integrate import solve_ivp

import parsample as ps
from parsample.results.trace import as_datatree

YEARS = np.arange(1900, 1921)
PELTS = np.array(
    [[30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1, 40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6,
      16.2, 24.7],
     [4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4, 8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1,
      8.6]]
)  # fmt: skip
NOISE = 0.25
# Calls of the equations that a solution takes at most: the first steps of a chain may go where it would take hours.
MOST = 20_000
RATES = ("births", "caught", "deaths", "grown")


def prior() -> None:
    """The rates of the Lotka-Volterra equations a year, and both populations in 1900, in thousands."""
    numpyro.sample("births", dist.LogNormal(np.log(0.5), 0.3))
    numpyro.sample("caught", dist.LogNormal(np.log(0.03), 0.3))
    numpyro.sample("deaths", dist.LogNormal(np.log(0.8), 0.3))
    numpyro.sample("grown", dist.LogNormal(np.log(0.03), 0.3))
    numpyro.sample("first", dist.LogNormal(np.log(np.array([30.0, 5.0])), 0.3).to_event(1))


def populations(position: dict[str, np.ndarray]) -> np.ndarray:
    """Both populations, year by year."""
    births, caught, deaths, grown = (float(position[name]) for name in RATES)
    calls = itertools.count()

    def change(_: float, z: np.ndarray) -> list[float]:
        if next(calls) > MOST:
            raise OverflowError("these rates are absurd")
        return [z[0] * (births - caught * z[1]), z[1] * (grown * z[0] - deaths)]

    return solve_ivp(change, (1900, 1920), position["first"], t_eval=YEARS, method="LSODA", rtol=1e-7, atol=1e-7).y


def simulate(position: dict[str, np.ndarray]) -> float:
    """The log likelihood."""
    try:
        with np.errstate(all="ignore"):
            misfit = (np.log(PELTS) - np.log(populations(position))) / NOISE
    except (OverflowError, ValueError):  # ValueError is the solver's, where numbers have become infinite
        return -np.inf
    total = float(-0.5 * np.sum(misfit**2))
    return total if np.isfinite(total) else -np.inf


@contextlib.contextmanager
def two_workers() -> Iterator[Any]:
    """A Dask cluster on this machine, None where that is not installed."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        print("distributed is not installed: two processes of parsample's own take its place")
        yield None
        return
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor()


def draw(trace: Any, output: Path) -> None:
    """Draw the posterior: each rate, and populations of some draws beside the data."""
    found = as_datatree(trace)["posterior"]
    figure = matplotlib.figure.Figure(figsize=(11, 5.5), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    for column, name in enumerate(RATES):
        axes = figure.add_subplot(grid[0, column])
        axes.hist(np.ravel(found[name]), 25, density=True, color="0.6")
        axes.set(title=name, yticks=[])
    axes = figure.add_subplot(grid[1, :])
    values = {name: np.asarray(found[name]).reshape(-1, *found[name].shape[2:]) for name in (*RATES, "first")}
    for row in np.linspace(0, len(values["births"]) - 1, 40).astype(int):
        both = populations({name: leaf[row] for name, leaf in values.items()})
        for species, color in zip(both, ("tab:blue", "tab:red"), strict=True):
            axes.plot(YEARS, species, color=color, alpha=0.15)
    for species, color, name in zip(PELTS, ("tab:blue", "tab:red"), ("hares", "lynxes"), strict=True):
        axes.plot(YEARS, species, "o", color=color, label=name)
    axes.set(xlabel="year", ylabel="pelts, thousands", xticks=YEARS[::5])
    axes.legend()
    figure.savefig(output, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    """Sample, say what it took, and draw the posterior."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("predator_prey.png"))
    parser.add_argument("--warmup", type=int, default=800)
    parser.add_argument("--samples", type=int, default=8000)
    options = parser.parse_args(arguments)
    with two_workers() as executor:
        target = ps.targets.External(simulate, prior=prior, executor=executor, workers=2)
        start = {"births": 0.5, "caught": 0.03, "deaths": 0.8, "grown": 0.03, "first": np.array([30.0, 5.0])}
        trace = ps.sample(
            target,
            num_warmup=options.warmup,
            num_samples=options.samples,
            num_chains=2,
            until={"ess": 400, "rhat": 1.01},
            start=start,
            progress=False,
        )
    print(ps.read_verdict(trace).text())
    draw(trace, options.output)
    print(f"saved {options.output}")


if __name__ == "__main__":
    main()
