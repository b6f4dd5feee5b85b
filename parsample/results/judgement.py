"""Whether a run can be trusted, and what to do, in words: for the terminal, for JSON and for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parsample.results.summary import Worst, worst
from parsample.results.trace import as_datatree
from parsample.results.verdict import CLEAR, Verdict

if TYPE_CHECKING:
    import pandas

# The front door's promise for its own targets, and what the field asks for (Vehtari et al. 2021).
GOOD_RHAT, GOOD_ESS = 1.01, 400
# Where the loop finishes fewer steps than this share, nothing is to be gained by another method.
MANY = 0.01
# Chains this far apart seldom come together by drawing on: something holds one of them.
APART_RHAT = 1.05
ANOTHER = (
    "where that does not help, chains may sit in different modes, or no one step size may fit the whole posterior: try "
    "another parametrisation (non-centred, say), or --sampler hmc, the default, if it was another"
)
MORE = "draw more (--samples, with --until ess=400 --until rhat=1.01 to end when they are good)"


def is_good(trace: Any, summary: pandas.DataFrame) -> bool:
    """Say whether a run can be trusted: the draws by R-hat and ESS, and the chain, which must not be approximate."""
    return are_good(worst(summary)) and not as_datatree(trace).attrs.get("evaluation_approximate_steps", 0)


def are_good(found: Worst) -> bool:
    """Say whether the worst of the draws are good enough."""
    return found.r_hat < GOOD_RHAT and found.ess_bulk > GOOD_ESS


def judge_draws(summary: pandas.DataFrame) -> str:
    """Say whether the draws are good, by which numbers, and what to do where they are not."""
    found, facts = worst(summary), tell_draws(summary)
    return f"good: {facts}" if are_good(found) else f"not good enough yet: {facts}; {_more(found)}"


def _more(found: Worst) -> str:
    return f"{MORE}; {ANOTHER}" if found.r_hat > APART_RHAT else MORE


def tell_draws(summary: pandas.DataFrame) -> str:
    """Return the numbers that decide whether the draws are good."""
    found = worst(summary)
    return (
        f"largest R-hat {found.r_hat:.4f} ({found.r_hat_variable}), smallest bulk ESS {found.ess_bulk:.0f} "
        f"({found.ess_bulk_variable})"
    )


def what_to_do(summary: pandas.DataFrame, verdict: Verdict | None, divergences: int = 0) -> list[str]:
    """Return what a reader should do, a sentence each; never empty.

    Args:
        summary: of the draws, by `parsample.summarize`.
        verdict: of the evaluation, None where there is none.
        divergences: draws whose trajectory diverged.
    """
    found, advice = worst(summary), []
    if not are_good(found):
        if 0 < found.ess_bulk <= GOOD_ESS and found.r_hat < GOOD_RHAT:
            advice.append(
                f"The chains agree, but there are too few effective draws: {MORE}. About "
                f"{GOOD_ESS / found.ess_bulk:.1f} times as many draws would do."
            )
        else:
            advice.append(f"Do not use these draws yet: {_more(found)}.")
    if divergences:
        advice.append(
            f"{divergences:,} draws are divergent: look where they lie in the pair plot. Smaller steps "
            "(--acceptance 0.95) or another parametrisation make them fewer."
        )
    if verdict is not None and verdict.approximate_steps:
        advice.append("The chain is an approximation, as asked; leave Picard's mismatch out for that of the loop.")
    if verdict is not None and verdict.finished_sequentially > MANY * verdict.steps * verdict.chains:
        advice.append(
            "The draws are right, but the loop had to finish many steps: try a smaller step size or another method "
            "(parsample diagnose tells which)."
        )
    if verdict is not None and verdict.compared_steps and verdict.parallel_seconds > CLEAR * verdict.sequential_seconds:
        advice.append(f"On this device method='sequential' gives {verdict.sooner()}.")
    if verdict is not None and verdict.parts_from_the_loop:
        advice.append(
            "The draws are those of a valid chain, up to the tolerance, and not the same as the loop's: smaller atol "
            "and rtol, with double precision where need be, put off where they part; method='sequential' gives "
            "the loop's."
        )
    return advice or ["Nothing needs to be done: use the draws."]
