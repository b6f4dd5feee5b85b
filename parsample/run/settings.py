"""The options of a run, each in one place: its default and what it means; and the settings that a trace keeps of them.

`parsample.sample` takes the options of the groups one by one or group by group, the command line makes its own of them,
and a trace has them all as its `Settings`.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parsample.engine.methods import Method
    from parsample.samplers.base import Sampler
else:
    # The command line makes its help of what stands here, and who asks for it does not want to wait for JAX.
    Method = Sampler = Any

# What no run repeats: where its target came from is told by the caller.
NO_OPTIONS = ("target", "data", "unkept")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Warmup:
    """What warm-up does.

    Attributes:
        num_warmup: warm-up steps a chain, not part of the posterior; 0 for none.
        step_size: of the sampler, in units of the posterior's scale. None for what warm-up finds.
        target_acceptance: the mean acceptance rate, in (0, 1), that warm-up steers the step size to; higher for smaller
            steps and fewer divergences. None for the sampler's own, 0.8 for "hmc"; 0.95 where warm-up has more
            divergent steps than one in a thousand.
        start: where chains start: "random"; "laplace" for draws from the normal distribution at the mode, in whose
            coordinates warm-up begins; or values by name, on the command line the path of a JSON file of them. Values
            are in the variables' own coordinates, {"scale": 1.5}, all or some: of the others a chain draws its own. One
            dict is for all chains, which start exactly there, without noise; a list of dicts has one a chain, and R-hat
            means more where these are far apart. Or one of NumPyro's strategies for a model of its, such as
            `init_to_median`, for each chain with its own key. Or positions in unconstrained coordinates, such as those
            of `parsample.MCMC.last_state`: whatever has all of the position's entries, each with an axis for the chains
            in front, is read so, and where it might be values as well, a list of dicts says that it is.
        mass: what warm-up learns of the posterior's covariance: "diagonal", "dense", "low_rank" or "auto". Low rank is
            a diagonal and the directions that are far from it; "auto" is what the draws bear out: the diagonal, or up
            to 256 dimensions a dense one, and above them one of low rank.
        warmup_method: how warm-up is evaluated: a name in `METHODS`, but not "auto". Or an instance. None for the loop,
            for its segments are short, so that it is seldom slower; and for as many steps ahead as there are workers
            where the model runs outside of JAX. Not the `method` of the run: so that this one makes no difference to
            the chain.
        tune: what to tune for: "rounds" for effective draws a round, all of whose gradients can run at once. Shorter
            steps are tried, and for HMC shorter trajectories, down to one leapfrog step, which is MALA, on pilot runs
            after warm-up, and the setting with most effective draws for the gradients that have to wait for each other
            is taken; the verdict says what was traded. For devices on which an iteration costs what a step costs; None
            for what mixes best in the loop.
    """

    num_warmup: int = 1000
    step_size: float | None = None
    target_acceptance: float | None = None
    start: Any = "random"
    mass: str = "auto"
    warmup_method: str | Method | None = None
    tune: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How chains are evaluated. Whatever it is, they are the same chains, to within the tolerance.

    Attributes:
        method: a name in `METHODS`. Or an instance with its options, such as
            `parsample.methods.QuasiNewton(estimator="hutchinson")`. "auto" is what is soonest on this device, of the
            loop and "quasi_newton", and on an accelerator "lifted_newton" for HMC and MALA in up to 64 dimensions: for
            runs of seconds the loop, for longer ones what a short measurement says.
        window: steps solved at a time. None for 16 on a CPU, 1,024 elsewhere. Or "all" for the whole chain. What is
            evaluated at once is a segment: about 1,024 steps, or as many as the window has, and with a store what a
            killed run repeats at most.
        atol: tolerance of the evaluation, in posterior standard deviations. None for 4 times the rounding noise, 1e-6
            at least. That noise is what rounding leaves open of a step's value, measured as warm-up ends: below it no
            iteration can settle anything, and a tolerance there costs hundreds of iterations for draws that are no
            nearer to the loop's. An accept decision that hangs on less than the tolerance may fall otherwise than in
            the loop.
        rtol: tolerance relative to the state, dimensionless. None for the same number.
        max_iterations: of a segment, after which the sequential loop takes over. None for two in three of its steps.
        compare: run the first segment by the sequential loop as well, for the verdict. It then has the loop's wall
            time, the largest difference and the accept decisions that differ. None for methods other than "auto",
            which has measured.
    """

    method: str | Method = "auto"
    window: int | str | None = None
    atol: float | None = None
    rtol: float | None = None
    max_iterations: int | None = None
    compare: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep:
    """What is kept of the draws, and beside them. Where they go is `store`: two runs cannot write to one.

    Attributes:
        keep_warmup: keep what warm-up drew, too. The draws are `warmup_posterior`, and `warmup_sample_stats` has their
            `lp`, `acceptance_rate`, `step_size`, and `diverging` where the sampler has it.
        groups: further groups of the trace: "log_likelihood", "posterior_predictive", "prior" or "evaluation". The last
            is what every iteration of the first segment of the first chain saw, for `parsample.write_report` and
            `parsample.plots` (the loop has no iterations, and no such group); the target has to be able to make the
            others, as a NumPyro model is.
        thin: keep the last of every so many draws. `num_samples` counts those before thinning; what is counted, such as
            divergences and the verdict, is of all of them.
        transform: what to keep of a draw: a function from the trace's variables of one draw, by name, to others, made
            of JAX's functions. It stands before thinning, and `until` looks at what it returns.
        dims: the names of a variable's axes after chain and draw. They take the place of those that the target has, or
            that the plates of a model give; {"theta": ["school"]}, say.
        coords: the labels of a dim, as many as it is long. By the name of the dim: {"school": ["Choate", "Deerfield"]}.
    """

    keep_warmup: bool = False
    groups: Sequence[str] = ()
    thin: int = 1
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    dims: Mapping[str, Any] | None = None
    coords: Mapping[str, Any] | None = None


# The groups as the arguments of `parsample.sample` that take them whole.
GROUPS: dict[str, Any] = {"warmup": Warmup, "evaluation": Evaluation, "keep": Keep}


@dataclasses.dataclass(frozen=True, eq=False)
class Settings(Keep, Evaluation, Warmup):
    """What a run was asked for; the options of the groups are its attributes, too.

    Attributes:
        target: its name; of one that the command line made the name in `TARGETS`, or FILE.py:NAME.
        data: the data file that the command line made the target with.
        sampler: a name in `SAMPLERS`. Or a sampler's class. "auto" is "hmc", which mixes best over the package's
            targets; for a model outside of JAX it is "mala", which takes one gradient a step, or "rwm", where the model
            has none.
        sampler_options: arguments of the sampler by name. `num_integration_steps` of "hmc", say, which warm-up else
            chooses with the step size.
        num_samples: draws a chain.
        num_chains: chains.
        until: end before `num_samples` when every variable has an effective sample size, bulk and tail, above "ess" and
            an R-hat below "rhat", or after "seconds" of sampling. The draws are looked at in pieces of at most 1,024;
            nothing else that `parsample.judge` looks at may be wrong with them. The attribute `until_met` of the trace
            says whether they were good enough. A rule that looks at the draws favours lucky chains a little: ask for
            more than you need.
        seed: a whole number; the same seed gives the same trace on the same machine and versions.
        unkept: options whose value a file cannot hold, such as a function -> what it was, in words.
    """

    target: str
    data: str | None = None
    sampler: str | type[Sampler] = "auto"
    sampler_options: Mapping[str, Any] | None = None
    num_samples: int = 1000
    num_chains: int = 4
    until: Mapping[str, Any] | None = None
    seed: int = 0
    unkept: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Compare what a file would hold."""
        return isinstance(other, Settings) and self.plain() == other.plain()

    @property
    def is_auto(self) -> bool:
        """Whether the method is to be chosen."""
        return isinstance(self.method, str) and self.method == "auto"

    @property
    def sampler_name(self) -> str:
        """The sampler's name in `SAMPLERS`, or that of its class."""
        return self.sampler if isinstance(self.sampler, str) else self.sampler.__name__

    @staticmethod
    def of(arguments: Mapping[str, Any], target: str, data: str | None = None) -> "Settings":
        """Return the settings of the arguments of `parsample.sample`; what is no option is passed over."""
        from parsample.samplers import SAMPLERS

        options = {name: arguments[name] for name in OPTIONS}
        names = (name for name, row in SAMPLERS.items() if row is options["sampler"])
        options["sampler"] = next(names, options["sampler"])
        return Settings(target, data, **options)

    def plain(self) -> dict[str, Any]:
        """Return the fields as JSON knows them; those that it cannot hold are in `unkept`."""
        from parsample.run.freeze import described, freeze

        fields: dict[str, Any] = {"target": self.target, "data": self.data}
        unkept = dict(self.unkept)
        for name in OPTIONS:
            if name in unkept:
                continue
            value = getattr(self, name)
            try:
                fields[name] = freeze(list(value) if name == "groups" else value, name=name)
            except TypeError:
                unkept[name] = described(value)
        return {**fields, "unkept": unkept}

    def to_json(self) -> str:
        """Return the fields as JSON."""
        return json.dumps(self.plain())

    @staticmethod
    def from_json(text: str) -> "Settings":
        """Return the settings of `to_json`.

        Raises:
            ValueError: the text holds no settings, or those of another version.
        """
        from parsample.run.freeze import thaw

        try:
            fields = json.loads(text)
            fields = {name: value if name in NO_OPTIONS else thaw(value, {}) for name, value in fields.items()}
            return Settings(**{**fields, "groups": tuple(fields.get("groups", ()))})
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise ValueError(f"the settings cannot be read ({error}), expected those of this version.") from None

    def arguments(self, **given: Any) -> dict[str, Any]:
        """Return the keyword arguments of `parsample.sample`; the target is not among them.

        Args:
            **given: arguments that take precedence.

        Raises:
            ValueError: an option cannot be made again from a file, and is not given.
        """
        for name, text in self.unkept.items():
            if name not in given:
                raise ValueError(f"{name} is {text}, which settings do not hold; pass it as {name}=.")
        return {name: getattr(self, name) for name in OPTIONS} | given

    def differences(self, other: "Settings") -> dict[str, tuple[str, str]]:
        """Return the fields in which two settings differ: name -> what it is here and there, in words."""
        here, there = self.plain(), other.plain()
        names = [name for name in ("target", "data", *OPTIONS) if _row(here, name) != _row(there, name)]
        return {name: (_words(self, here, name), _words(other, there, name)) for name in names}


def _row(plain: Mapping[str, Any], name: str) -> tuple[Any, str | None]:
    return plain.get(name), plain["unkept"].get(name)


def _words(settings: Settings, plain: Mapping[str, Any], name: str) -> str:
    return plain["unkept"].get(name) or repr(getattr(settings, name))


# The options of a run by name: what `parsample.sample` takes and a trace keeps.
OPTIONS = tuple(field.name for field in dataclasses.fields(Settings) if field.name not in NO_OPTIONS)


def read_settings(trace: Any) -> Settings:
    """Read the settings of a run from its trace, or from the file or store that holds it.

    Args:
        trace: what `parsample.sample` returned or `parsample.load_trace` read, or the path of it.

    Raises:
        ValueError: it holds none.
    """
    if isinstance(trace, str | os.PathLike):
        from parsample.store.layout import is_store, read_run

        if is_store(trace):
            return Settings.from_json(read_run(trace)["settings"])
        from parsample.results.trace import load_trace

        trace = load_trace(trace)
    text = trace.attrs.get("settings") if isinstance(trace.attrs, Mapping) else None
    if text is None:
        raise ValueError("trace has no attribute 'settings', expected a trace that parsample.sample returned.")
    return Settings.from_json(text)
