"""The front door of diffusion: the parallel samples are the loop's, their law is right, and the counts are honest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import parsample as ps
from parsample.engine import methods
from parsample.engine.memory import evaluation_bytes
from parsample.run.diffuse import ACCEPT_EARLY
from parsample.run.diffuse_method import MOST_OF_SURROGATE, begin, find_method, of_surrogate, per_iteration
from parsample.samplers import diffusion
from parsample.samplers.diffusion import PROCESSES
from tests.energy import energy_distance, energy_shift, energy_test
from tests.samplers.diffusion.models import MEANS, model
from tests.tolerances import STATISTICAL, check_mean

STEPS = 24


def diffuse(*args: Any, method: Any = "scaled_identity", **options: Any) -> ps.Diffused:
    """In parallel, whatever is sooner on this device."""
    return ps.diffuse(*args, method=method, **options)


def make(name: str, **options: Any) -> diffusion.Process:
    defaults = PROCESSES[name](lambda x, t: x)
    if name == "annealed_langevin":
        return PROCESSES[name](model(defaults.schedule), num_steps=4, sigma_data=0.3, repeats=STEPS // 4, **options)
    return PROCESSES[name](model(defaults.schedule), num_steps=STEPS, sigma_data=0.3, **options)


def known_data() -> diffusion.NormalDenoiser:
    """Normal data like what the model of the tests draws, two directions of its three."""
    return diffusion.NormalDenoiser.fit(model(diffusion.LinearBetas()).draw(jax.random.key(0), 500), 2)


slow = pytest.mark.slow
# Every row compiles two programs; those that reach no other code than the first ones are slow.
QUICK = ("ddpm", "dpm_solver_pp")
ROWS: list[Any] = [(name, "scaled_identity") for name in QUICK]
ROWS += [pytest.param(name, "scaled_identity", marks=slow) for name in PROCESSES if name not in QUICK]
ROWS += [
    ("ddim", "parareal"),
    pytest.param("ddpm", "picard", marks=slow),
    pytest.param("ddpm", "quasi_newton", marks=slow),
    pytest.param("ddim", "anderson", marks=slow),
    pytest.param("dpm_solver_pp", "picard", marks=slow),
    pytest.param("dpm_solver_pp", "block_quasi_newton", marks=slow),
    ("ddpm", "subspace_newton"),
    pytest.param("ddim", "subspace_newton", marks=slow),
    pytest.param("unipc", "subspace_newton", marks=slow),
    pytest.param("heun", "subspace_newton", marks=slow),
    pytest.param("edm", "newton", marks=slow),
    pytest.param("annealed_langevin", "newton", marks=slow),
]
# The true error of a trajectory is a multiple of what the method sees of it, and this is the largest in any row.
TOLERANCE, TOLERANCES = 1e-3, 2
# With noise predicted in bfloat16, whose roundings change with the state.
BFLOAT16_TOLERANCES = 4


@pytest.mark.parametrize(("name", "method"), ROWS)
def test_parallel_samples_are_the_loops(name: str, method: str) -> None:
    process = make(name, **({"surrogate": known_data()} if method == "subspace_newton" else {}))
    out = diffuse(process, (3,), 2, method=method, tolerance=TOLERANCE)
    loop = diffuse(process, (3,), 2, method="sequential")
    assert out.solution.converged.all()
    x = jax.vmap(jax.vmap(process.sample))
    error = np.asarray(x(out.solution.states) - x(loop.solution.states))
    relative = np.sqrt((error**2).mean(-1)) / process.noise_levels
    assert relative.max() < TOLERANCES * TOLERANCE
    np.testing.assert_array_equal(out.samples, x(out.solution.states)[:, -1])
    calls = process.evaluations_per_step
    np.testing.assert_array_equal(loop.rounds, calls * process.num_steps)
    if method != "parareal":
        np.testing.assert_array_equal(out.rounds, calls * out.solution.iterations)
        assert (out.solution.iterations <= process.num_steps).all()


@pytest.mark.slow
def test_the_law_of_the_samples() -> None:
    """Mean and second moments of a mixture, behind their standard errors; ancestral sampling has a bias of its own."""
    schedule = diffusion.LinearBetas()
    out = diffuse(diffusion.DDPM(model(schedule), schedule, 250, sigma_data=0.3), (3,), 600)
    truth = model(schedule).draw(jax.random.key(9), 200_000)
    x = np.asarray(out.samples)
    for power in (1, 2):
        moments = x**power
        check_mean(moments.mean(0), (np.asarray(truth) ** power).mean(0), moments.std(0) / np.sqrt(len(x)))
    nearest = np.argmin(((x[:, None] - MEANS) ** 2).sum(-1), 1)
    shares = np.bincount(nearest, minlength=3) / len(x)
    assert (np.abs(shares - 1 / 3) < STATISTICAL * np.sqrt(2 / 9 / len(x))).all()


def test_the_energy_distance_is_scipys_on_a_line() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.normal(0.5, 2.0, 30)
    # SciPy's is a square root, and its means count the distance of a draw to itself.
    own = [np.abs(z[:, None] - z).sum() * (1 / (len(z) * (len(z) - 1)) - 1 / len(z) ** 2) for z in (x, y)]
    expected = scipy.stats.energy_distance(x, y) ** 2 - sum(own)
    np.testing.assert_allclose(energy_distance(x[:, None], y[:, None]), expected, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("ddpm", 100), ("ddim", 50)])
def test_the_energy_distance_from_exact_draws(name: str, steps: int) -> None:
    """Parallel samples are as far from exact draws as the loop's, and no farther than other exact draws would be."""
    schedule, count = diffusion.LinearBetas(), 500
    mixture = diffusion.MixtureModel.at_random(jax.random.key(0), schedule, 16, 4)
    truth = np.asarray(mixture.draw(jax.random.key(5), count), np.float64)
    process = PROCESSES[name](mixture, schedule, steps, sigma_data=0.2)
    drawn = [diffuse(process, (16,), count, method=m).samples for m in ("scaled_identity", "sequential")]
    parallel, loop = (np.asarray(samples, np.float64) for samples in drawn)
    found = energy_test(parallel, truth)
    assert abs(found.distance - found.usual) < STATISTICAL * found.deviation
    shift, error = energy_shift(parallel, loop, truth)
    assert 0 < abs(shift) < STATISTICAL * error
    # Pairs are close: the difference is known better than either distance.
    assert error < found.deviation / 2
    # What such a test sees: samples that spread a tenth too far.
    wide = parallel.mean(0) + 1.1 * (parallel - parallel.mean(0))
    shift, error = energy_shift(wide, loop, truth)
    assert abs(shift) > STATISTICAL * error


@pytest.mark.slow
def test_windows_guesses_and_methods_change_no_sample() -> None:
    process = make("ddpm")
    loop = diffuse(process, (3,), 2, method="sequential")
    cases: list[dict[str, Any]] = [
        {"window": 5},
        {"guess": "coarse", "coarse_steps": 3},
        {"guess": loop},
        {"method": methods.Anderson(methods.ScaledIdentity(0.9))},
        {"max_iterations": 2},
    ]
    found = [diffuse(process, (3,), 2, **case) for case in cases]
    for out in found:
        np.testing.assert_allclose(out.samples, loop.samples, atol=TOLERANCE * process.sigma_data)
        assert out.solution.converged.all()
    coarse, neighbour, cut = found[1], found[2], found[-1]
    np.testing.assert_array_equal(coarse.rounds, 3 + coarse.solution.iterations)
    np.testing.assert_array_equal(neighbour.rounds, 1)
    # What was left to the loop waits step by step.
    assert (cut.finished_sequentially > 0).all()
    np.testing.assert_array_equal(cut.rounds, 2 + cut.finished_sequentially)


@pytest.mark.parametrize(("window", "most"), [(None, 1.5), (25, 0.1)])
def test_the_error_of_a_sample_is_the_tolerances(window: int | None, most: float) -> None:
    """Steps accepted one after the other at the whole tolerance leave an error of five."""
    schedule = diffusion.LinearBetas()
    mixture = diffusion.MixtureModel.at_random(jax.random.key(0), schedule, 64, deviation=0.2)
    process = diffusion.DDIM(mixture, schedule, 100, sigma_data=0.2)
    out = diffuse(process, (64,), 4, seed=1, tolerance=TOLERANCE, window=window)
    loop = diffuse(process, (64,), 4, seed=1, method="sequential")
    error = np.sqrt(np.mean((np.asarray(out.samples) - loop.samples) ** 2, 1))
    assert error.max() < most * TOLERANCE * process.sigma_data
    assert (out.finished_sequentially == 0).all()


def test_the_seed_and_the_number_of_samples() -> None:
    process = make("ddim")
    few, many = diffuse(process, (3,), 2, seed=5), diffuse(process, (3,), 2, seed=6)
    assert np.abs(few.samples - many.samples).max() > 0.01
    np.testing.assert_array_equal(few.samples, diffuse(process, (3,), 2, seed=5).samples)


def test_what_parareal_waits_for() -> None:
    out = diffuse(make("ddim"), (3,), method="parareal")
    assert out.rounds[0] == 5 * out.solution.iterations[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method", "active_set"),
    [
        ("dpm_solver_pp", "scaled_identity", False),
        pytest.param("ddim", "scaled_identity", True, marks=pytest.mark.grid),
        pytest.param("ddpm", "anderson", False, marks=pytest.mark.grid),
    ],
)
def test_a_budget_sets_the_window(name: str, method: str, active_set: bool) -> None:
    """What the window that was chosen compiles to is within the budget, and not far below."""
    process = make(name)
    found, options = find_method(process, method)
    options |= {"method": found, "active_set": active_set, "rtol": 0.0}
    options["atol"] = 1.0  # one number for all steps, as the measurement has it: its constants are part of the program
    initial, inputs = process.init(jax.random.key(0), (3,)), process.draw_inputs(jax.random.key(0), (3,))

    def size(window: int) -> int:
        stopping = ps.Stopping(norm="rms", accept_early=0.0 if window == STEPS else ACCEPT_EARLY, finish=True)
        return evaluation_bytes(process.transition, initial, inputs, 1, window=window, stopping=stopping, **options)

    least, most = size(1), size(STEPS)
    budget = (least + most) // 2
    keywords: dict[str, Any] = {"method": method, "active_set": active_set, "memory_budget": budget}
    tight = diffuse(process, (3,), **keywords)
    assert 1 < tight.window < STEPS
    assert 0.8 * budget < size(tight.window) <= budget
    with pytest.raises(
        ValueError,
        match=rf"window is {STEPS}, which takes {most:,} bytes .* memory_budget, .*; a window of \d+ fits",
    ):
        diffuse(process, (3,), **keywords, window=STEPS)
    assert diffuse(process, (3,), **{**keywords, "memory_budget": most}).window == STEPS
    with pytest.raises(ValueError, match=rf"memory_budget is 1 bytes, and even a window of 1 takes {least:,} bytes"):
        diffuse(process, (3,), **{**keywords, "memory_budget": 1})


def test_what_an_evaluation_costs() -> None:
    """Calls of the model a step, a derivative along one direction counted as one."""
    cost = lambda method: per_iteration(method, 24, 3)  # noqa: E731
    assert cost(methods.Picard()) == cost(methods.ScaledIdentity(0.5)) == (1.0, 1)
    assert cost(methods.Anderson(methods.ScaledIdentity("trace"))) == (2.0, 1)
    assert cost(methods.QuasiNewton("hutchinson", num_probes=2)) == (3.0, 1)
    assert cost(methods.BlockQuasiNewton(num_probes=2)) == (5.0, 1)
    assert cost(methods.Newton()) == cost(methods.QuasiNewton("exact")) == (4.0, 1)
    assert cost(methods.SubspaceNewton(jnp.eye(3, 2), scale=0.5)) == (3.0, 1)
    assert cost(methods.Parareal(segment=5)) == (1.0, 5)
    # A coarse solver of its own calls the model once for each of five segments, one after the other.
    assert cost(methods.Parareal(lambda x, inputs: x, 5)) == (1.0, 10)
    # On three levels five segments are one again, whose end is joined; FCF runs both levels' segments twice.
    assert cost(methods.Parareal(lambda x, inputs: x, 5, levels=3)) == (1.0, 5 + 5 + 1)
    assert cost(methods.Parareal(lambda x, inputs: x, 5, levels=3, relaxation="FCF")) == (1.0, 10 + 10 + 1)
    assert cost(methods.Parareal(segment=5, levels=3, relaxation="FCF")) == (1.0, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim", pytest.param("dpm_solver_pp", marks=pytest.mark.grid)])
def test_what_stands_in_saves_rounds_and_changes_no_sample(name: str) -> None:
    """The guess from the data's mean and covariance is nearer, and their directions are all that Newton needs."""
    schedule = diffusion.LinearBetas()
    mixture = diffusion.MixtureModel.at_random(jax.random.key(0), schedule, 32, components=5)
    data = mixture.draw(jax.random.key(1), 500)

    def draw(method: str, surrogate: Any = None) -> Any:
        process = PROCESSES[name](mixture, schedule, 30, sigma_data=0.2, surrogate=surrogate)
        return diffuse(process, (32,), 8, method=method)

    known = diffusion.NormalDenoiser.fit(data, 4)
    loop = draw("sequential")
    outs = [draw("scaled_identity"), draw("scaled_identity", known), draw("subspace_newton", known), draw("newton")]
    for out in outs:
        assert out.solution.converged.all()
        error = np.sqrt(np.mean((np.asarray(out.samples) - np.asarray(loop.samples)) ** 2, 1))
        assert error.max() < TOLERANCES * TOLERANCE * 0.2
    rounds = [float(out.rounds.mean()) for out in outs]
    assert rounds[0] > rounds[1] > rounds[2]
    # Newton starts from the poorer guess, and calls the model for every direction.
    assert rounds[2] <= rounds[3]
    assert outs[2].model_evaluations.mean() < outs[3].model_evaluations.mean()


@pytest.mark.parametrize(("name", "known"), [("ddpm", False), ("ddpm", True), ("dpm_solver_pp", True)])
def test_off_the_cpu_no_step_of_the_guess_waits_for_the_one_before_it(name: str, known: bool) -> None:
    process = make(name, surrogate=known_data() if known else None)
    limits = jnp.asarray(TOLERANCE * process.noise_levels, jnp.float32)
    initial, inputs = begin(process, jax.random.key(3), (3,), jnp.float32)
    transition = process.with_surrogate().transition
    options = of_surrogate(process, limits, is_cpu=False)
    found = ps.evaluate(transition, initial, inputs, throw=False, **options)
    # Of normal data the Jacobian is known, and that is all there is to such a process.
    assert found.iterations <= (MOST_OF_SURROGATE if known else 2)
    loop = ps.evaluate(transition, initial, inputs, **of_surrogate(process, limits, is_cpu=True))
    for one, other in zip(jax.tree.leaves(found.states), jax.tree.leaves(loop.states), strict=True):
        assert (np.abs(one - other).max(1) < TOLERANCES * limits).all()


def test_a_model_that_fails_at_a_time() -> None:
    schedule = diffusion.LinearBetas()
    fine = model(schedule)
    process = diffusion.DDIM(lambda x, t: jnp.where(t == 400, jnp.nan, fine(x, t)), schedule, 10)
    with pytest.raises(ps.ConvergenceError, match=r"step 5 of 10 is not finite: predict returned NaN .* at t = 400"):
        diffuse(process, (3,))
    out = diffuse(process, (3,), throw=False)
    assert not out.solution.converged.any()
    assert out.solution.first_bad_step[0] == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_a_model_in_bfloat16(name: str) -> None:
    """A sample is nearer to the loop's than that is to the loop's with the model in float32."""
    schedule = diffusion.LinearBetas()
    fine = model(schedule)

    def draw(predict: Callable, method: str) -> Any:
        process = PROCESSES[name](predict, schedule, 20, sigma_data=0.3)
        return diffuse(process, (3,), 4, method=method, tolerance=TOLERANCE).samples

    def largest(one: Any, other: Any) -> float:
        return float(np.sqrt(np.mean((np.asarray(one) - np.asarray(other)) ** 2, 1)).max()) / (0.3 * TOLERANCE)

    def coarse(x: Any, t: Any) -> Any:
        return fine(x.astype(jnp.bfloat16), t)

    loop, out = draw(coarse, "sequential"), draw(coarse, "scaled_identity")
    assert out.dtype == loop.dtype == jnp.float32
    assert largest(out, loop) < BFLOAT16_TOLERANCES < largest(draw(fine, "sequential"), loop)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process": 3}, r"process is a int, expected one such as"),
        ({"shape": [3]}, r"shape is \[3\], expected the shape of one sample"),
        ({"tolerance": 0.0}, r"tolerance is 0.0, expected a finite number above 0"),
        ({"num_samples": 0}, r"num_samples is 0, expected a whole number of at least 1"),
        ({"guess": "coarsest"}, r"guess is 'coarsest', expected one of 'surrogate', 'coarse', 'start'"),
        ({"guess": jnp.zeros((3, 2))}, r"guess has the shapes \(3, 2\), expected \(24, 3\) for one sample"),
        ({"guess": "coarse", "coarse_steps": 25}, r"coarse_steps is 25, expected at most 24"),
        ({"method": "picrad"}, r"method is 'picrad'.*Did you mean 'picard'"),
        ({"method": "subspace_newton"}, r"needs the data's principal directions; give the process surrogate="),
        ({"window": 0}, r"window is 0, expected a whole number of at least 1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"process": make("ddim"), "shape": (3,), "num_samples": 1, **options}
    with pytest.raises(ValueError, match=message):
        diffuse(**arguments)


@pytest.mark.parametrize("seed", [2**32, -1, True])
def test_a_seed_that_would_be_cut_off_is_refused(seed: Any) -> None:
    """In 32 bits JAX takes 2**32 for 0; other doors to random numbers refuse it alike."""
    message = r"seed is .*, expected a whole number from 0 to 2\*\*32 - 1"
    with pytest.raises(ValueError, match=message):
        diffuse(make("ddim"), (3,), seed=seed)
    with pytest.raises(ValueError, match=message):
        ps.forecast("eight_schools", seed=seed)
    with pytest.raises(ValueError, match=message):
        ps.lyapunov_exponent(lambda state, input: state, jnp.zeros(1), jnp.zeros(20), seed=seed)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=slow)])
def test_samples_of_half_precision(dtype: Any) -> None:
    process = diffusion.DDIM(lambda x, t: jnp.tanh(x), num_steps=8, sigma_data=0.3)
    out = diffuse(process, (3,), 2, dtype=dtype)
    loop = diffuse(process, (3,), 2, dtype=dtype, method="sequential")
    assert out.samples.dtype == loop.samples.dtype == dtype
    assert out.solution.converged.all()
    rounding = float(jnp.finfo(dtype).eps)
    error = np.asarray(out.solution.states, np.float32) - np.asarray(loop.solution.states, np.float32)
    relative = np.sqrt((error**2).mean(-1)) / process.noise_levels
    assert relative.max() < TOLERANCES * max(TOLERANCE, 6.4 * rounding)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int32"}, r"dtype is 'int32', expected a floating-point one"),
        ({"dtype": "fp16"}, r"dtype is 'fp16', expected a floating-point one"),
        ({"dtype": complex}, r"dtype is <class 'complex'>, expected a floating-point one"),
        ({"dtype": np.float64}, r"dtype is float64, which JAX has in its x64 mode only"),
        (
            {"dtype": jnp.bfloat16, "tolerance": 1e-3},
            r"tolerance is 0.001, below 0.0078, the rounding",
        ),
    ],
)
def test_dtypes_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diffuse(make("ddim"), (3,), **options)
