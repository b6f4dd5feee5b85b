"""A verdict for tests that show one."""

from parsample.results.verdict import Verdict

VERDICT = Verdict(
    method="quasi_newton",
    window=16,
    chains=4,
    steps=500,
    iterations=200,
    evaluations_per_step=3.5,
    largest_residual=2e-6,
    atol=1e-5,
    rtol=1e-5,
    finished_sequentially=0,
    approximate_steps=0,
    run_seconds=1.0,
    compile_seconds=2.0,
    compared_steps=500,
    parallel_seconds=6.0,
    sequential_seconds=2.0,
    largest_difference=1e-6,
    decisions_that_differ=0,
)
