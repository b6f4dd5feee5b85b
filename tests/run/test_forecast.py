"""The forecast for a posterior: what `diagnose` says of the chain that warm-up leads to."""

import pytest

import parsample as ps


@pytest.mark.slow
def test_small_steps_are_foreseen_to_be_easier() -> None:
    def iterations(step_size: float) -> dict[str, int]:
        found = ps.forecast("log_gamma", "mala", num_warmup=160, num_steps=128, step_size=step_size)
        return {row.method: row.iterations for row in found.forecasts}

    small, large = iterations(0.01), iterations(0.5)
    assert all(small[method] < large[method] for method in ("picard", "quasi_newton"))
    assert small == iterations(0.01)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="num_warmup is 0, expected a whole number of at least 1; the posterior's sca"):
        ps.forecast("banana", num_warmup=0)
    with pytest.raises(ValueError, match="num_steps is 0, expected a whole number of at least 1"):
        ps.forecast("banana", num_steps=0)
    with pytest.raises(ValueError, match=r"step_size is -1\.0, expected one finite number above 0"):
        ps.forecast("banana", step_size=-1.0)
    with pytest.raises(ValueError, match=r"target_acceptance is 0\.9, but step_size is 0\.1, so that nothing is"):
        ps.forecast("banana", step_size=0.1, target_acceptance=0.9)
