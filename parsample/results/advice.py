"""What to do about draws that are not good, in the words of the caller."""

from parsample.results.judgement import Judgement, listed
from parsample.results.words import Caller

# Chains this far apart seldom come together by drawing on: something holds one of them.
APART_RHAT = 1.05
# What to steer the step size to, step by step, where draws diverge.
ACCEPTANCES = (0.95, 0.99)


def advise(judgement: Judgement, caller: Caller) -> list[str]:
    """Return what to do about the draws, a sentence for each fault; empty where there is nothing to be done."""
    kinds = [fault.kind for fault in judgement.faults]
    if "r_hat" in kinds:
        kinds = [kind for kind in kinds if not kind.startswith("ess_")]
    if {"ess_bulk", "ess_tail"} <= set(kinds):
        kinds.remove("ess_tail")
    remedies = _remedies(judgement, caller)
    advice = [remedies[kind] for kind in kinds]
    if judgement.divergences and "divergences" not in kinds:
        fewer = _smaller_steps(judgement, caller)
        fewer = f"; {fewer} makes them fewer" if fewer else ""
        advice.append(f"{judgement.divergence_words()}, few enough to use the draws{fewer}.")
    return advice


def _remedies(judgement: Judgement, caller: Caller) -> dict[str, str]:
    """Return for every kind of fault what to do about it."""
    more = f"draw more ({caller.name('num_samples')}; {caller.option('until', {'ess': 400, 'rhat': 1.01})} ends a run "
    more += "when its draws are good)"
    smaller = _smaller_steps(judgement, caller)
    smaller = f"{smaller} makes smaller steps; where that is not enough, another" if smaller else "Another"
    few = f"The chains agree, but there are too few effective draws: {more}.{_how_many_more(judgement)}"
    return {
        "not_finite": f"Do not use the draws of {listed(judgement.not_finite)}: find the logarithm, division or "
        "overflow in the model that gives no number there, or give the variable the constraint that it lacks.",
        "stuck": "No proposal was accepted, or the log density does not depend on these variables: look at the "
        f"acceptance rate, warm up longer ({caller.name('num_warmup')}), and check the model there.",
        "few_draws": f"Draw more ({caller.name('num_samples')}).",
        "one_chain": f"Run several chains ({caller.option('num_chains', 4)}): only they can disagree.",
        "r_hat": f"Do not use these draws yet: {more}{_apart(judgement, caller)}.",
        "ess_bulk": few,
        "ess_tail": few,
        "divergences": "Do not trust the tails: look where the divergent draws lie (pair plot of the report). "
        f"{smaller} parametrisation helps (non-centred; the effects of a NumPyro model are that where it suits them).",
        "e_bfmi": "The energy changes too little from draw to draw to reach the tails: more draws do not mend that, "
        "another parametrisation does (non-centred, say, or lighter tails).",
        "approximate": "The chain is an approximation, as asked; leave the mismatch of Picard out for the loop's.",
    }


def _smaller_steps(judgement: Judgement, caller: Caller) -> str | None:
    """Return the option that makes smaller steps than those of the draws; None where they can hardly be smaller."""
    steered = judgement.target_acceptance or 0.0
    higher = next((acceptance for acceptance in ACCEPTANCES if acceptance > steered), None)
    return None if higher is None else caller.option("target_acceptance", higher)


def _how_many_more(judgement: Judgement) -> str:
    """Say how many times as many draws would do, with a tenth to spare."""
    smallest, least = min(judgement.worst.ess_bulk, judgement.worst.ess_tail), judgement.thresholds.ess
    return f" About {1.1 * least / smallest:.1f} times as many would do." if least and smallest > 0 else ""


def _apart(judgement: Judgement, caller: Caller) -> str:
    if not judgement.worst.r_hat > APART_RHAT:
        return ""
    return (
        "; where that does not help, chains may sit in different modes, or no one step size may fit the whole "
        f"posterior: try another parametrisation (non-centred, say), or {caller.option('sampler', 'hmc')} if it was "
        "another"
    )
