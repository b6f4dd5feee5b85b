"""Whether draws are good: the one place that decides it, for the verdict, `until`, the report and the exit code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from parsample.results.summary import (
    FEWEST_DRAWS,
    MOVES,
    NOT_FINITE,
    STILL,
    STUCK,
    Worst,
    diagnostics,
    motion,
    summarize,
    worst,
)
from parsample.results.trace import SAMPLE_DIMS, Trace, as_datatree, posterior_dataset
from parsample.results.words import PYTHON, Caller

if TYPE_CHECKING:
    import pandas

# What the field asks for (Vehtari et al. 2021).
GOOD_RHAT, GOOD_ESS = 1.01, 400
# Their momentum lives on from draw to draw, so the energies of neighbouring draws do not tell how it is exchanged.
PARTIALLY_REFRESHED = ("ghmc", "underdamped_langevin")
# Names that a sentence lists before it counts the rest.
LISTED = 3


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What draws must have to be good.

    Attributes:
        r_hat: the largest rank-normalised split R-hat, dimensionless; None to leave it out.
        ess: the effective sample size, bulk and tail, that every variable must exceed, in draws; None to leave it out.
        divergent: the largest share of divergent draws. Stan warns of any; so do we. But the region that a share p of
            the draws failed to enter holds about as much of the posterior, and what 400 effective draws say of a
            probability of 0.001 has a standard error of 0.0016: up to there R-hat and ESS decide.
        e_bfmi: the smallest E-BFMI of a chain, dimensionless: below it momentum is too weak to reach the tails.

    Source: Vehtari et al. 2021 for R-hat and ESS; Betancourt 2016 and Stan (https://mc-stan.org/misc/warnings) for
    divergences and E-BFMI.
    """

    r_hat: float | None = GOOD_RHAT
    ess: float | None = GOOD_ESS
    divergent: float = 0.001
    e_bfmi: float = 0.3


GOOD = Thresholds()


class Fault(NamedTuple):
    """A reason why draws are not good.

    Attributes:
        kind: a name, for programs.
        fact: what was found, in words.
    """

    kind: str
    fact: str


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Whether draws are good, and by which numbers.

    Attributes:
        worst: the largest R-hat and the smallest effective sample sizes, of the variables that move.
        chains: how many.
        draws: of each chain, as the trace has them.
        moving: how many variables move, each scalar counted.
        not_finite: variables with NaN or an infinite value among their draws.
        stuck: variables that stay where they began in every chain, at different places; or all, where none moves. A
            variable that has the same value in all chains while others move is a constant, such as the diagonal of a
            correlation matrix, and fine: a chain that is stuck there too cannot be told from it.
        divergences: divergent draws, before thinning; None for samplers without any.
        transitions: among which they were counted, over all chains: draws, or the trajectories of which they are made.
        trajectories: of which a draw is made.
        e_bfmi: the energy Bayesian fraction of missing information of the worst chain, NaN where it cannot be worked
            out; None for samplers without energy, or that keep momentum from draw to draw, and of thinned draws.
        approximate_steps: that are not within tolerance, where an approximation was asked for.
        target_acceptance: what the step size was steered to; None where that is not known.
        thresholds: by which it is judged.
    """

    worst: Worst
    chains: int
    draws: int
    moving: int
    not_finite: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    divergences: int | None = None
    transitions: int = 0
    trajectories: int = 1
    e_bfmi: float | None = None
    approximate_steps: int = 0
    target_acceptance: float | None = None
    thresholds: Thresholds = GOOD

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong with the draws."""
        return not self.faults

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is wrong with the draws, the gravest first. What is not known is not good."""
        return tuple(self._faults())

    def _faults(self) -> Iterator[Fault]:
        least, found = self.thresholds, self.worst
        if self.not_finite:
            yield Fault("not_finite", f"NaN or infinite values among the draws of {listed(self.not_finite)}")
        if self.stuck:
            yield Fault("stuck", f"{listed(self.stuck)} never moved")
        if self.draws < FEWEST_DRAWS:
            yield Fault("few_draws", f"{self.draws} draws a chain are too few to judge")
        elif self.moving:
            yield from self._of_numbers(found, least)
        # Comparisons with NaN are False, so each asks for what is good.
        if self.divergences and not self.divergences <= least.divergent * self.transitions:
            yield Fault("divergences", self.divergence_words())
        if self.e_bfmi is not None and not self.e_bfmi >= least.e_bfmi:
            yield Fault("e_bfmi", f"E-BFMI {self.e_bfmi:.2f}, below {least.e_bfmi}, in a chain")
        if self.approximate_steps:
            yield Fault("approximate", f"an approximation, as asked: {self.approximate_steps:,} steps are not exact")

    def _of_numbers(self, found: Worst, least: Thresholds) -> Iterator[Fault]:
        if least.r_hat is not None and self.chains < 2:
            yield Fault("one_chain", "one chain has no R-hat: nothing tells whether it has seen the whole posterior")
        elif least.r_hat is not None and not found.r_hat < least.r_hat:
            yield Fault("r_hat", f"R-hat {found.r_hat:.4f} ({found.r_hat_variable}), not below {least.r_hat:g}")
        for kind, value, variable in (
            ("bulk", found.ess_bulk, found.ess_bulk_variable),
            ("tail", found.ess_tail, found.ess_tail_variable),
        ):
            if least.ess is not None and not value > least.ess:
                yield Fault(f"ess_{kind}", f"{kind} ESS {value:,.0f} ({variable}), not above {least.ess:,.0f}")

    def divergence_words(self) -> str:
        """Return how many draws are divergent, or how many of the trajectories of which they are made."""
        count, total = self.divergences or 0, self.transitions
        share = 100 * count / max(total, 1)
        return f"{count:,} of {total:,} {self._moves} {'is' if count == 1 else 'are'} divergent ({share:.2g}%)"

    @property
    def _moves(self) -> str:
        return "draws" if self.trajectories == 1 else "trajectories"

    def rows(self, caller: Caller = PYTHON) -> list[tuple[str, str]]:
        """Return the judgement as pairs of a heading and a text, what it comes to first; without what to do."""
        faults, found = self.faults, self.worst
        rows = [("draws", "good" if not faults else f"not good: {'; '.join(fault.fact for fault in faults)}")]
        if self.chains > 1:
            rows.append(("R-hat", f"at most {found.r_hat:.4f}{_of(found.r_hat_variable)}"))
        else:
            rows.append(("R-hat", f"not known of one chain; {caller.option('num_chains', 4)} makes four"))
        rows += [
            ("bulk ESS", f"at least {found.ess_bulk:,.0f}{_of(found.ess_bulk_variable)}"),
            ("tail ESS", f"at least {found.ess_tail:,.0f}{_of(found.ess_tail_variable)}"),
        ]
        if self.divergences is not None:
            none = f"none in {self.transitions:,} {self._moves}"
            rows.append(("divergences", self.divergence_words() if self.divergences else none))
        if self.e_bfmi is not None:
            rows.append(("E-BFMI", f"{self.e_bfmi:.2f} in the worst chain"))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers and the faults as plain values."""
        own = ("chains", "draws", "not_finite", "stuck", "divergences", "transitions", "e_bfmi", "approximate_steps")
        facts = self.worst._asdict() | {name: getattr(self, name) for name in own}
        return {"good": self.is_good, "faults": [fault.kind for fault in self.faults], **facts}


def judge(trace: Trace, summary: pandas.DataFrame | None = None) -> Judgement:
    """Say whether the draws of a trace are good.

    They are if

    - every value is finite, and every variable moves that should (see `Judgement.stuck`),
    - R-hat is below 1.01 for every variable, of two chains at least,
    - bulk and tail ESS are above 400 for every variable,
    - at most one draw in a thousand is divergent, or one trajectory where a draw is made of several,
    - E-BFMI is at least 0.3 in every chain, where the sampler has energies,
    - and no approximation was asked for.

    Args:
        trace: of `parsample.sample`, or anybody's, with a group `posterior`; divergences and energies are the variables
            `diverging` and `energy` of `sample_stats`.
        summary: of it, by `parsample.summarize`; None to work it out.

    Returns:
        The judgement, always of the draws that are in the trace.

    Raises:
        ValueError: the trace has no group `posterior`.

    Cost: that of `parsample.summarize`, unless the summary is given.
    """
    tree, posterior = as_datatree(trace), posterior_dataset(trace)
    variables = posterior.data_vars.values()
    states = [state for row in variables for state in motion(row.transpose(*SAMPLE_DIMS, ...).values)]
    table = summarize(trace) if summary is None else summary
    stats = tree["sample_stats"].data_vars if "sample_stats" in tree.children else {}
    diverging, energy = (
        np.asarray(stats[name].transpose(*SAMPLE_DIMS)) if name in stats else None for name in ("diverging", "energy")
    )
    counted = None if diverging is None else (int(diverging.sum()), diverging.size)
    attributes = tree.attrs
    trajectories = int(attributes.get("num_trajectories", 1))
    if counted is not None and "divergences" in attributes:
        # Counted before thinning, as the verdict is.
        counted = int(attributes["divergences"]), int(attributes["evaluation_steps"] * attributes["evaluation_chains"])
    if not tells_energy(attributes.get("sampler"), attributes.get("thin", 1)):
        energy = None
    return _judgement(
        table,
        states,
        (posterior.sizes["chain"], posterior.sizes["draw"]),
        None if counted is None else (counted[0], counted[1] * trajectories),
        energy,
        trajectories=trajectories,
        approximate_steps=int(attributes.get("evaluation_approximate_steps", 0)),
        target_acceptance=attributes.get("target_acceptance"),
    )


def judge_arrays(
    draws: Mapping[str, np.ndarray],
    divergences: tuple[int, int] | None = None,
    energy: np.ndarray | None = None,
    thresholds: Thresholds = GOOD,
) -> Judgement:
    """Judge draws that are not in a trace yet, one variable in memory at a time.

    Args:
        draws: variable -> values, shape (chain, draw, ...).
        divergences: how many, and of how many transitions.
        energy: shape (chain, draw); None where there is none that says anything.
        thresholds: to judge by.
    """
    import pandas
    import xarray

    tables, states, shape = [], list[str](), (0, 0)
    for name, values in draws.items():
        dims = [f"dim_{axis}" for axis in range(values.ndim - 2)]
        posterior = xarray.Dataset({name: ((*SAMPLE_DIMS, *dims), values)})
        tables.append(diagnostics(posterior))
        states += motion(values)
        shape = values.shape[:2]
    return _judgement(pandas.concat(tables), states, shape, divergences, energy, thresholds)


def tells_energy(sampler: str | None, thin: int) -> bool:
    """Say whether the energies of neighbouring draws tell how a sampler exchanges momentum."""
    return thin == 1 and sampler not in PARTIALLY_REFRESHED


def _judgement(
    table: pandas.DataFrame,
    states: Sequence[str],
    shape: tuple[int, ...],
    divergences: tuple[int, int] | None,
    energy: np.ndarray | None,
    thresholds: Thresholds = GOOD,
    **known: Any,
) -> Judgement:
    """Judge by a table with the columns `DIAGNOSTICS`, and what each of its rows does."""
    of_state = {
        state: tuple(str(label) for label, found in zip(table.index, states, strict=True) if found == state)
        for state in (MOVES, STILL, STUCK, NOT_FINITE)
    }
    moving = [state == MOVES for state in states]
    # Constants are constants beside something that moves.
    stuck = of_state[STUCK] or (() if any(moving) or of_state[NOT_FINITE] else of_state[STILL])
    return Judgement(
        worst=worst(table[moving]),
        chains=shape[0],
        draws=shape[1],
        moving=sum(moving),
        not_finite=of_state[NOT_FINITE],
        stuck=stuck,
        divergences=None if divergences is None else divergences[0],
        transitions=0 if divergences is None else divergences[1],
        e_bfmi=None if energy is None or shape[1] < FEWEST_DRAWS else smallest_e_bfmi(energy),
        thresholds=thresholds,
        **known,
    )


def smallest_e_bfmi(energy: Float[np.ndarray, "chain draw"]) -> float:
    """Return the energy Bayesian fraction of missing information of the worst chain, NaN where one has none.

    Source: Betancourt 2016 (arXiv:1604.00695), equation 20: the mean square of the energy's changes over its variance.
    """
    energy = energy.astype(np.float64)
    with np.errstate(all="ignore"):
        return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)))


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them, the first few and how many more."""
    rest = len(names) - LISTED
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:LISTED])} and {rest:,} more"


def _of(variable: str | None) -> str:
    return "" if variable is None else f" ({variable})"
