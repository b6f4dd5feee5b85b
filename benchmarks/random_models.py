"""Random NumPyro models at the front door: each sampled, built, saved, loaded, summarised and held against NumPyro.

    XLA_FLAGS=--xla_backend_optimization_level=0 python -m benchmarks.random_models --number 300

Nearly all of the time goes into compiling, hence the flag.

Every model is made of a seed: nested plates (square ones, too), constraints of every kind, factors, masks, scaled and
scoped parts, likelihoods of one and of many dimensions, deterministic sites of odd dtypes and shapes, names that files
cannot hold, arguments that are matrices, keys and hyperparameters of a site's name. `check` samples 20 draws and raises
where something is not as it should be; tests/run/test_random_models.py runs some of them.
"""

import argparse
import json
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer.initialization import init_to_uniform

from benchmarks import kept
from benchmarks.device import write_table

NUM_SAMPLES = 20
GROUPS = ("log_likelihood", "posterior_predictive", "prior")
NAMES = [
    "x",
    "theta",
    "B+",
    "B-",
    "a b",
    "a.b",
    "é",
    "chain",
    "draw",
    "x_dim_0",
    "zarr.json",
    ".",
    "w[0]",
    "mu$",
    "lp",
    "B",
]
SCOPES = ["a", "b", "a/b", "draw"]
PLATES = ["row", "column", "draw", "chain", "group", "x_dim_0", "site/plate"]

# What a latent site may be, each for a random event size k.
PRIORS: dict[str, Callable[[int], Any]] = {
    "normal": lambda k: dist.Normal(0.0, 1.0 + k),
    "half-normal": lambda k: dist.HalfNormal(1.0 * k),
    "gamma": lambda k: dist.Gamma(2.0 + k, 1.0),
    "beta": lambda k: dist.Beta(2.0, 1.0 + k),
    "uniform": lambda k: dist.Uniform(-1.0, 1.0 * k),
    "von Mises": lambda k: dist.VonMises(0.0, 1.0 * k),
    "Pareto": lambda k: dist.Pareto(1.0, 2.0 + k),
    "truncated below": lambda k: dist.TruncatedNormal(0.0, 1.0, low=-0.5),
    "truncated above": lambda k: dist.TruncatedNormal(0.0, 1.0, high=0.5),
    "truncated": lambda k: dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=1.0),
    "Student t": lambda k: dist.StudentT(3.0 + k),
    "Kumaraswamy": lambda k: dist.Kumaraswamy(2.0, 2.0),
    "Weibull": lambda k: dist.Weibull(1.0, 1.5),
    "Dirichlet": lambda k: dist.Dirichlet(jnp.ones(k + 1)),
    "vector": lambda k: dist.Normal(jnp.zeros(k), 1.0).to_event(1),
    "matrix": lambda k: dist.Normal(jnp.zeros((k, 2)), 1.0).to_event(2),
    "multivariate normal": lambda k: dist.MultivariateNormal(jnp.zeros(k), jnp.eye(k)),
    "low rank": lambda k: dist.LowRankMultivariateNormal(jnp.zeros(k), jnp.ones((k, 1)), jnp.ones(k)),
    "LKJ": lambda k: dist.LKJ(k + 1, 2.0),
    "LKJ Cholesky": lambda k: dist.LKJCholesky(k + 1, 2.0),
    "Wishart": lambda k: dist.Wishart(k + 3.0, jnp.eye(k)),
    "zero sum": lambda k: dist.ZeroSumNormal(1.0, (k + 1,)),
    "random walk": lambda k: dist.GaussianRandomWalk(1.0, num_steps=k),
    "log-normal": lambda k: dist.LogNormal(0.0, 1.0),
    "exponential": lambda k: dist.Exponential(1.0 * k),
    "ordered": lambda k: dist.TransformedDistribution(
        dist.Normal(jnp.zeros(k), 1.0).to_event(1), dist.transforms.OrderedTransform()
    ),
}
# Improper priors, made proper by a factor: constraints that no distribution above has.
CONSTRAINTS: dict[str, tuple[Any, Callable[[int], tuple[int, ...]]]] = {
    "positive ordered": (constraints.positive_ordered_vector, lambda k: (k,)),
    "simplex": (constraints.simplex, lambda k: (k + 1,)),
    "lower Cholesky": (constraints.lower_cholesky, lambda k: (k, k)),
    "softplus positive": (constraints.softplus_positive, lambda k: ()),
    "softplus lower Cholesky": (constraints.softplus_lower_cholesky, lambda k: (k, k)),
    "scaled unit lower Cholesky": (constraints.scaled_unit_lower_cholesky, lambda k: (k, k)),
    "positive definite": (constraints.positive_definite, lambda k: (k, k)),
    "l1 ball": (constraints.l1_ball, lambda k: (k,)),
    "open interval": (constraints.open_interval(0.0, 2.0), lambda k: ()),
    "less than": (constraints.less_than(1.0), lambda k: ()),
    "greater than": (constraints.greater_than(1.0), lambda k: ()),
    "real matrix": (constraints.real_matrix, lambda k: (k, 2)),
}
# Likelihoods of a number, each with data of it.
LIKELIHOODS: dict[str, Callable[[Any, int], tuple[Any, Any]]] = {
    "normal": lambda m, k: (dist.Normal(m, 1.0), 0.5),
    "Bernoulli": lambda m, k: (dist.Bernoulli(logits=m), 1),
    "Poisson": lambda m, k: (dist.Poisson(jnp.exp(0.1 * m)), 2),
    "binomial": lambda m, k: (dist.Binomial(5, logits=m), 3),
    "categorical": lambda m, k: (dist.Categorical(logits=m[..., None] * jnp.arange(k + 1.0)), k),
    "multivariate normal": lambda m, k: (dist.MultivariateNormal(m[..., None] * jnp.ones(k), jnp.eye(k)), np.ones(k)),
    "multinomial": lambda m, k: (dist.Multinomial(3, logits=m[..., None] * jnp.ones(k + 1)), np.eye(k + 1)[0] * 3),
    "vector": lambda m, k: (dist.Normal(m[..., None] * jnp.ones(k), 1.0).to_event(1), np.ones(k)),
    "matrix": lambda m, k: (dist.Normal(m[..., None, None] * jnp.ones((k, 2)), 1.0).to_event(2), np.ones((k, 2))),
    "mixture": lambda m, k: (
        dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(m[..., None] * jnp.arange(2.0), 1.0)),
        0.1,
    ),
    "masked": lambda m, k: (dist.Normal(m, 1.0).mask(np.asarray(k > 1)), 0.3),
    "zero-inflated": lambda m, k: (dist.ZeroInflatedPoisson(0.3, jnp.exp(0.1 * m)), 0),
}
DETERMINISTIC: dict[str, Callable[[Any], Any]] = {
    "square": lambda x: x**2,
    "complex": lambda x: jnp.exp(1j * x),
    "boolean": lambda x: x > 0,
    "integer": lambda x: jnp.round(10 * x).astype(int),
    "bfloat16": lambda x: x.astype(jnp.bfloat16),
    "empty": lambda x: jnp.zeros((0, 2)) * jnp.sum(x),
    "sum": jnp.sum,
    "stacked": lambda x: jnp.stack([x, -x]),
    "row": lambda x: jnp.ravel(x)[None],
    "pair": lambda x: (x, {"twice": 2 * x}),
    "number": lambda x: 3.0,
    "key": lambda x: jax.random.key(0),
    "unsigned": lambda x: (x > 0).astype(jnp.uint8),
}


class Case(NamedTuple):
    """A model with its arguments, and what kinds of things are in it."""

    model: Callable
    args: tuple
    kwargs: dict[str, Any]
    kinds: tuple[str, ...]


class Maker:
    """What makes one model: a stream of choices, names that are left, and the statements so far."""

    def __init__(self, seed: int):
        """Take a seed."""
        self.rng = np.random.default_rng(seed)
        self.kinds: list[str] = []
        self.used: Counter[str] = Counter()

    def one_of(self, table: Any) -> Any:
        """Choose from a table."""
        keys = list(table)
        return keys[self.rng.integers(len(keys))]

    def name(self, table: Any) -> str:
        """Choose a name that no site has."""
        name = self.one_of(table)
        self.used[name] += 1
        return name if self.used[name] == 1 else f"{name}{self.used[name]}"

    def size(self) -> int:
        """Choose a size: small, so that many are alike."""
        return int(self.rng.integers(1, 4))

    def chance(self, share: float) -> bool:
        """Say yes in a share of cases."""
        return bool(self.rng.random() < share)

    def latent(self) -> Callable[[], Any]:
        """Make a latent site; it returns a number for every place in the plates around it."""
        name, k = self.name(NAMES), self.size()
        if self.chance(0.3):
            kind = self.one_of(CONSTRAINTS)
            constraint, shape = CONSTRAINTS[kind]
            self.kinds.append(f"constraint {kind}")

            def improper() -> Any:
                fn = dist.ImproperUniform(constraint, (), shape(k))
                value = numpyro.sample(name, fn)
                numpyro.factor(f"{name}_factor", -0.5 * _sum(value**2, fn.event_dim))
                return _sum(value, fn.event_dim)

            return improper
        kind, event_dims = self.one_of(PRIORS), self.chance(0.3)
        self.kinds.append(f"prior {kind}")

        def proper() -> Any:
            fn = PRIORS[kind](k)
            infer = {"event_dims": [f"{name}_event{axis}" for axis in range(fn.event_dim)]} if event_dims else {}
            return _sum(numpyro.sample(name, fn, infer=infer), fn.event_dim)

        return proper

    def likelihood(self) -> Callable[[Any], None]:
        """Make an observed site."""
        name, kind, k, broadcast = (
            self.name(["y", "y+", "obs/y"]),
            self.one_of(LIKELIHOODS),
            self.size(),
            self.chance(0.7),
        )
        self.kinds.append(f"likelihood {kind}")

        def observe(mean: Any) -> None:
            fn, value = LIKELIHOODS[kind](0.1 * jnp.asarray(mean), k)
            numpyro.sample(name, fn, obs=np.broadcast_to(value, fn.shape()) if broadcast else np.asarray(value))

        return observe

    def deterministic(self) -> Callable[[Any], None]:
        """Make a deterministic site."""
        name, kind = self.name(NAMES), self.one_of(DETERMINISTIC)
        self.kinds.append(f"deterministic {kind}")
        return lambda value: numpyro.deterministic(name, DETERMINISTIC[kind](value))

    def wrapper(self) -> Callable[[Callable], Callable]:
        """Choose a handler to put around a part of the model."""
        kind = self.one_of(["nothing", "nothing", "scope", "mask", "scale"])
        if kind == "nothing":
            return lambda part: part
        self.kinds.append(kind)
        if kind == "scope":
            prefix = self.name(SCOPES)
            return lambda part: handlers.scope(part, prefix)
        if kind == "mask":
            return lambda part: handlers.mask(part, mask=False)
        return lambda part: handlers.scale(part, scale=2.0)

    def part(self, depth: int) -> Callable[[Any], Any]:
        """Make a part of a model: sites, and perhaps a plate with a part of its own in it."""
        latent = self.latent()
        others = [self.deterministic() for _ in range(self.rng.integers(0, 2))]
        others += [self.likelihood()] if self.chance(0.5) else []
        if self.chance(0.3):
            factor = self.name(["factor"])
            self.kinds.append("factor")
            others.append(lambda value: numpyro.factor(factor, -0.1 * jnp.asarray(value) ** 2))
        inner = None
        if depth < 2 and self.chance(0.5):
            plate, size = self.name(PLATES), self.size()
            self.kinds.append(f"plate {depth + 1} deep")
            inner = plate, size, self.part(depth + 1)

        def run(mean: Any) -> Any:
            value = mean + latent()
            for other in others:
                other(value)
            if inner is not None:
                with numpyro.plate(inner[0], inner[1]):
                    inner[2](value)
            return value

        return run

    def case(self) -> Case:
        """Make a model."""
        parts = [(self.wrapper(), self.part(0)) for _ in range(1 + int(self.chance(0.4)))]
        last, sites = self.likelihood(), self.name(["tau"])
        arguments = {
            "y": np.ones((2, 3), np.float32),
            sites: 2.0,
            "key": jax.random.key(1),
            "label": "a",
            "table": {"n": 3},
        }
        kwargs = {name: value for name, value in arguments.items() if self.chance(0.5)}
        self.kinds += [f"argument {name}" for name in kwargs]

        def model(**arguments: Any) -> None:
            mean = numpyro.sample(sites, dist.Normal(0.0, 1.0).expand((2,)).to_event(1)).sum()
            for wrapped, part in parts:
                mean = mean + 0 * wrapped(part)(mean)
            last(mean)

        return Case(model, (), kwargs, tuple(self.kinds))


def _sum(value: Any, axes: int) -> Any:
    return jnp.sum(value, axis=tuple(range(-axes, 0))) if axes else value


def make_case(seed: int) -> Case:
    """Return the model of a seed."""
    return Maker(seed).case()


def check(seed: int, folder: Path, sampler: str = "rwm") -> tuple[str, ...]:
    """Sample the model of a seed, and hold everything against NumPyro. Return the kinds that were in it.

    Raises:
        AssertionError: a value is not what NumPyro's handlers make of the draw.
    """
    import parsample as ps
    from parsample.results.trace import as_datatree

    case, rng = make_case(seed), np.random.default_rng([seed, 1])
    groups = [name for name in GROUPS if rng.random() < 0.5 and not (name == "prior" and _is_improper(case))]
    chains, stored = int(rng.integers(1, 3)), bool(rng.random() < 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = ps.targets.NumPyroModel(case.model, *case.args, **case.kwargs)
        # Where NumPyro would start, so that nothing has to be compiled to find a start.
        start = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * chains), target.position_template())
        trace = ps.sample(
            target,
            sampler=sampler,
            start=start,
            num_warmup=0,
            step_size=0.05,
            num_samples=NUM_SAMPLES,
            num_chains=chains,
            seed=seed,
            method="sequential",
            compare=False,
            groups=groups,
            store=folder / f"{seed}.zarr" if stored else None,
            progress=False,
        )
        path = ps.save_trace(trace, folder / f"{seed}.nc")
        back = as_datatree(ps.load_trace(path))
        summary = ps.summarize(back)
    path.unlink()
    assert {*groups, "posterior", "sample_stats", "observed_data"} <= set(back.children)
    assert len(summary) == sum(row[0, 0].size for row in back["posterior"].data_vars.values())
    _compare(case, back, groups, chains)
    return (*case.kinds, *groups, "store" if stored else "memory")


def _is_improper(case: Case) -> bool:
    return any(kind.startswith("constraint") for kind in case.kinds)


def _sites(model: Callable, case: Case, values: dict[str, Any] | None = None) -> dict[str, Any]:
    known = handlers.substitute(handlers.seed(model, jax.random.key(0)), substitute_fn=init_to_uniform)
    known = handlers.substitute(known, data=values or {})
    return handlers.trace(known).get_trace(*case.args, **case.kwargs)


def _compare(case: Case, tree: Any, groups: list[str], chains: int) -> None:
    """Run the model by NumPyro's own handlers at a draw, and compare every site with the trace."""
    names = json.loads(tree.attrs.get("renamed", "{}"))
    sites = {
        name: site
        for name, site in _sites(case.model, case).items()
        if site["type"] in ("sample", "deterministic") and not (site.get("infer") or {}).get("is_auxiliary")
    }
    observed = {name: site for name, site in sites.items() if site.get("is_observed")}
    latent = {name: site for name, site in sites.items() if site["type"] == "sample" and name not in observed}
    posterior = tree["posterior"].to_dataset()
    for name, site in latent.items():
        _check_dims(posterior[_name(names, name)], site)
    for chain, draw in {(0, 0), (chains - 1, NUM_SAMPLES - 1)}:
        at = {name: jnp.asarray(posterior[_name(names, name)].values[chain, draw]) for name in latent}
        found = _sites(case.model, case, at)
        for name in sites.keys() - latent.keys() - observed.keys():
            for given, values in _parts(name, found[name]["value"]).items():
                for own, value in zip(names.get(given, [given]), values, strict=True):
                    np.testing.assert_allclose(posterior[own].values[chain, draw], value, rtol=1e-4, atol=1e-4)
        for name in observed if "log_likelihood" in groups else ():
            row, density = tree["log_likelihood"][_name(names, name)], found[name]["fn"].log_prob(found[name]["value"])
            np.testing.assert_allclose(row.values[chain, draw], density, rtol=1e-4, atol=1e-4)
    for group in {"observed_data", "log_likelihood", "posterior_predictive"} & {"observed_data", *groups}:
        assert set(tree[group].data_vars) == {_name(names, name) for name in observed}
    for name, site in observed.items() if "posterior_predictive" in groups else ():
        row = tree["posterior_predictive"][_name(names, name)]
        assert row.shape == (chains, NUM_SAMPLES, *site["fn"].shape())


def _name(names: dict[str, list[str]], given: str) -> str:
    return names.get(given, [given])[0]


def _parts(name: str, value: Any) -> dict[str, tuple[Any, ...]]:
    """Return the numbers of a deterministic site, two of a complex one, by the names that it gives them."""
    if isinstance(value, tuple):
        return {f"{name}.0": (value[0],), f"{name}.1.twice": (value[1]["twice"],)}
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if array.size == 0 or jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return {}
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return {name: (array.real, array.imag)}
    return {name: (np.asarray(array.astype(jnp.float32)),)}


def _check_dims(row: Any, site: Any) -> None:
    """Assert that every plate around a site names the axis that its place says, unless no file can hold its name."""
    batch = row.ndim - site["fn"].event_dim
    for frame in site["cond_indep_stack"]:
        dim = row.dims[batch + frame.dim]
        plain = frame.name.isidentifier() and frame.name not in ("chain", "draw", "x_dim_0")
        assert dim == frame.name or not plain, f"{site['name']} has {dim} where the plate is {frame.name}"


def check_kept(seed: int, path: Path) -> None:
    """Check the model of a seed, and keep what came of it."""
    began = time.perf_counter()
    row: dict[str, Any] = {"seed": seed, "kinds": make_case(seed).kinds, "error": None}
    try:
        with tempfile.TemporaryDirectory() as folder:
            row["kinds"] = check(seed, Path(folder))
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    row["seconds"] = time.perf_counter() - began
    kept.keep(path, row)
    print(seed, row["error"] or "ok", f"{row['seconds']:.0f} s", flush=True)
    jax.clear_caches()


def write(path: Path) -> None:
    """Write the table of all models that were checked."""
    rows = kept.read(path, ["seed"]).values()
    kinds = Counter(kind for row in rows for kind in set(row["kinds"]))
    failed = [f"{row['seed']} ({row['error'].splitlines()[0]})" for row in rows if row["error"]]
    write_table(
        "random_models",
        "Random NumPyro models",
        f"`benchmarks/random_models.py`: {len(rows)} models, {NUM_SAMPLES} draws of one or two chains each, "
        "sampled, built, saved, loaded and summarised, and every value held against NumPyro's own handlers. "
        f"{len(failed)} failed{': ' if failed else ''}{'; '.join(failed)}. How many of them had what:",
        ("kind", "models"),
        sorted(kinds.items()),
    )


def main() -> None:
    """Check models one after the other, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs/random_models.jsonl"), help="what was done is kept")
    given = parser.parse_args()
    done = {seed for (seed,) in kept.read(given.keep, ["seed"])}
    for seed in range(given.first, given.first + given.number):
        if seed not in done:
            check_kept(seed, given.keep)
    write(given.keep)


if __name__ == "__main__":
    main()
