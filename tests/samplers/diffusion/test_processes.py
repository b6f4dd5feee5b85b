"""Each process step by step against the papers' loops, and the orders of the ODE solvers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsample.engine.evaluate import evaluate_sequential
from parsample.samplers import diffusion
from parsample.samplers.diffusion import PROCESSES, Process
from parsample.samplers.diffusion.schedules import Discrete
from tests.samplers.diffusion import textbook
from tests.samplers.diffusion.models import model, noise_in_numpy, x0_in_numpy
from tests.tolerances import SAME_COMPUTATION

LINEAR = diffusion.LinearBetas()
BETAS = np.linspace(1e-4, 0.02, 1000)
BAR = np.cumprod(1 - BETAS)


def run(process: Process, shape: tuple[int, ...] = (3,)) -> tuple[np.ndarray, Any, np.ndarray]:
    """Start, inputs and the samples in all states, by the loop."""
    state = process.init(jax.random.key(1), shape)
    inputs = process.draw_inputs(jax.random.key(2), shape)
    solution = evaluate_sequential(process.transition, state, inputs)
    x = np.asarray(process.sample(state))
    # A textbook that multiplies noise by 0 is given some.
    noise = [np.asarray(noise) for noise in inputs.noise] or [np.ones((process.num_steps, *shape))]
    return x, noise if process.noises else [], np.asarray(jax.vmap(process.sample)(solution.states))


def discrete(x: np.ndarray, t: int) -> np.ndarray:
    return noise_in_numpy(x, np.sqrt(BAR[t]), np.sqrt(1 - BAR[t]))


# Options that leave no noise at their least value, and processes that have none by default.
NOISELESS = {"eta", "churn", "most_churned", "inflation", "step_size"}
NOISELESS_PROCESSES = {"ddim", "heun", "dpm_solver_pp", "unipc"}


@pytest.mark.parametrize("name", PROCESSES)
def test_inputs_hold_noise_only_where_a_step_reads_it(name: str) -> None:
    """For every process as it is by default, and with each of its options at its least value."""
    least = {option: bound for option, _, bound, _ in PROCESSES[name].option_rows}
    for option in [None, *least]:
        given: dict[str, Any] = {} if option is None else {option: least[option]}
        process = PROCESSES[name](lambda x, t: 0.3 * x, num_steps=6, **given)
        inputs = process.draw_inputs(jax.random.key(0), (50,))
        state = process.init(jax.random.key(1), (50,))
        expected = 0 if option in NOISELESS or name in NOISELESS_PROCESSES else process.noises
        assert len(inputs.noise) == expected, given
        assert (sum(leaf.nbytes for leaf in jax.tree.leaves(inputs)) > 50 * 4 * process.num_steps) == (expected > 0)
        for which in range(expected):
            assert np.abs(slopes(process, state, inputs, which)).max() > 0, f"with {given} nothing reads the noise"


def slopes(process: Process, state: Any, inputs: Any, which: int) -> jax.Array:
    """The derivatives of the next sample in one of the arrays of noise, for every step."""

    def after(noise: jax.Array, input: Any) -> jax.Array:
        given = tuple(noise if k == which else other for k, other in enumerate(input.noise))
        return process.sample(process.step(state, input._replace(noise=given)))

    return jax.jit(jax.vmap(jax.jacfwd(after)))(inputs.noise[which], inputs)


def test_samples_with_noise_are_those_of_the_same_keys() -> None:
    """Each array of noise has its own key of those that the process splits off, whatever else is drawn or not."""
    cases: list[tuple[str, dict[str, Any]]] = [("ddim", {"eta": 0.3}), ("predictor_corrector", {}), ("edm", {})]
    for name, options in cases:
        process = PROCESSES[name](lambda x, t: 0.3 * x, num_steps=4, **options)
        keys = jax.random.split(jax.random.key(5), process.noises)
        for noise, key in zip(process.draw_inputs(jax.random.key(5), (3,)).noise, keys, strict=True):
            np.testing.assert_array_equal(noise, jax.random.normal(key, (12,)).reshape(4, 3))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("steps", [1, 20])
def test_ddpm(steps: int) -> None:
    process = diffusion.DDPM(model(LINEAR), LINEAR, steps)
    x, (noise,), states = run(process)
    SAME_COMPUTATION.check(states, textbook.ddpm(discrete, BETAS, process.visited, x, noise))


def test_ddpms_last_step_adds_no_noise() -> None:
    process = diffusion.DDPM(model(LINEAR), LINEAR, 10)
    _, _, s = process.draw_inputs(jax.random.key(0), (3,)).coefficients
    assert s[-1] == 0
    assert (s[:-1] > 0).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("eta", [0, 0.4, 1.0])
def test_ddim(eta: float) -> None:
    process = diffusion.DDIM(model(LINEAR), LINEAR, 20, spacing="trailing", eta=eta)
    x, (noise,), states = run(process)
    SAME_COMPUTATION.check(states, textbook.ddim(discrete, BETAS, process.visited, x, noise, eta))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_euler_maruyama(eta: float) -> None:
    process = diffusion.EulerMaruyama(model(diffusion.VP()), diffusion.VP(), 20, eta=eta)
    x, (noise,), states = run(process)

    def noise_model(x: np.ndarray, t: float) -> np.ndarray:
        alpha2 = np.exp(-0.1 * t - 9.95 * t**2)
        return noise_in_numpy(x, np.sqrt(alpha2), np.sqrt(1 - alpha2))

    expected = textbook.euler_maruyama_vp(noise_model, np.linspace(1, 1e-3, 20), x, noise, eta)
    SAME_COMPUTATION.check(states, expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["heun", "edm"])
def test_heun_and_edm(name: str) -> None:
    schedule, steps = diffusion.Karras(), 12
    process = PROCESSES[name](model(schedule), schedule, steps)
    x, noise, states = run(process)
    sigmas = (80 ** (1 / 7) + np.arange(steps) / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    noise = noise[0] if noise else np.zeros((steps, 3))
    denoiser = lambda x, sigma: x0_in_numpy(x, 1.0, sigma)  # noqa: E731
    expected = textbook.edm(denoiser, np.append(sigmas, 0), x, noise, 40 if name == "edm" else 0)
    np.testing.assert_allclose(states, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpm_solver_pp(eta: float) -> None:
    process = diffusion.DPMSolverPP(model(LINEAR), LINEAR, 15, eta=eta)
    x, (noise,), states = run(process)
    expected = textbook.dpm_solver_pp(discrete, BETAS, process.visited, x, noise, eta == 1)
    np.testing.assert_allclose(states, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_predictor_corrector() -> None:
    process = diffusion.PredictorCorrector(model(diffusion.VE()), diffusion.VE(), 20)
    x, (first, second), states = run(process)

    def score(x: np.ndarray, t: float) -> np.ndarray:
        sigma = 0.01 * 5000**t
        return -noise_in_numpy(x, 1.0, sigma) / sigma

    expected = textbook.predictor_corrector_ve(score, np.linspace(1, 1e-5, 20), x, first, second)
    np.testing.assert_allclose(states, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_annealed_langevin() -> None:
    schedule = diffusion.VE(0.01, 1.0, 0.0, 1.0)
    process = diffusion.AnnealedLangevin(model(schedule), schedule, 4, step_size=2e-5, repeats=5)
    x, (noise,), states = run(process)
    score = lambda x, sigma: -noise_in_numpy(x, 1.0, sigma) / sigma  # noqa: E731
    expected = textbook.annealed_langevin(score, np.geomspace(1, 0.01, 4), 5, 2e-5, x, noise)
    SAME_COMPUTATION.check(states, expected)


@pytest.mark.usefixtures("x64")
def test_euler_along_a_rectified_flow() -> None:
    schedule = diffusion.RectifiedFlow()
    process = diffusion.DDIM(model(schedule, "velocity"), schedule, 8, "velocity")
    x, _, states = run(process)
    times = np.append(np.linspace(1, 1e-3, 8), 0)
    for now, after, state in zip(times[:-1], times[1:], states, strict=True):
        x0 = x0_in_numpy(x, 1 - now, now)
        x = x + (after - now) * (x - x0) / now
        SAME_COMPUTATION.check(state, x)


# Process -> its order where the solution is smooth. The times leave out both ends, where other errors rule.
ORDERS = {"ddim": 1, "euler_maruyama": 1, "heun": 2, "dpm_solver_pp": 2, "unipc": 3}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ORDERS)
def test_orders_of_the_ode_solvers(name: str) -> None:
    """Normal data: along the ODE x is proportional to the deviation sqrt(alpha^2 s^2 + sigma^2) of its level."""
    schedule, errors = diffusion.VP(), []
    normal = diffusion.MixtureModel(schedule, jnp.zeros((1, 1)), 0.5)
    deviation = lambda t: np.sqrt(schedule.level(t).alpha ** 2 * 0.25 + schedule.level(t).sigma ** 2)  # noqa: E731
    options: dict[str, Any] = {"eta": 0.0} if name in ("euler_maruyama", "ddim") else {}
    for steps in (160, 320):
        times = np.linspace(0.7, 0.2, steps + 1)
        process = PROCESSES[name](normal, schedule, times=times, **options)
        state, inputs = process.init(jax.random.key(1), (1,)), process.draw_inputs(jax.random.key(2), (1,))
        states = evaluate_sequential(process.transition, state, inputs).states
        # UniPC's state lags: what a step predicts, the next one corrects. The predicted value has a local error of the
        # order of the global one and of the other sign, so that their sum is no pure power of the step.
        at_the_end = states[1][steps] if name == "unipc" else jax.vmap(process.sample)(states)[steps - 1]
        errors.append(abs(float((at_the_end / process.sample(state))[0]) - deviation(0.2) / deviation(0.7)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.1)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_jacobian_from_the_schedule_is_that_on_normal_data(name: str) -> None:
    """By finite differences of a step in many dimensions; the predictor-corrector's depends on its noise."""
    defaults = PROCESSES[name](lambda x, t: x)
    normal = diffusion.MixtureModel(defaults.schedule, jnp.zeros((1, 2)), 0.4)
    if name == "predictor_corrector":
        found = PROCESSES[name](normal, num_steps=100, sigma_data=0.4).jacobians()
        assert ((found > 0) & (found < 1)).all()
        return
    process = PROCESSES[name](normal, num_steps=6, sigma_data=0.4)
    inputs = process.draw_inputs(jax.random.key(0), (2,))
    state = process.start(jnp.asarray([0.3, -0.2]))
    flat, unravel = jax.flatten_util.ravel_pytree(state)
    step = lambda flat, input: jax.flatten_util.ravel_pytree(process.step(unravel(flat), input))[0]  # noqa: E731
    dense = jax.jit(jax.vmap(lambda input: jax.jacfwd(step)(flat, input)))(inputs)
    expected = np.kron(np.asarray(process.jacobians()), np.eye(2))
    np.testing.assert_allclose(dense, expected, rtol=1e-3, atol=1e-4)


def test_every_process_has_a_row_and_works_with_its_defaults() -> None:
    for name, row in PROCESSES.items():
        assert row.__module__ == f"parsample.samplers.diffusion.{name}"
        assert diffusion.find(name) is row
        process = row(lambda x, t: x)
        inputs = process.draw_inputs(jax.random.key(0), (2,))
        assert all(len(leaf) == process.num_steps for leaf in jax.tree.leaves(inputs))
        assert process.noise_levels.shape == (process.num_steps,)


def test_the_condition_reaches_the_model() -> None:
    process = diffusion.DDIM(lambda x, t, c: c["shift"] * x, num_steps=3, condition={"shift": jnp.asarray(0.5)})
    input = jax.tree.map(lambda leaf: leaf[0], process.draw_inputs(jax.random.key(0), (2,)))
    plain = diffusion.DDIM(lambda x, t: 0.5 * x, num_steps=3)
    SAME_COMPUTATION.check(process.step(jnp.ones(2), input), plain.step(jnp.ones(2), input))


def noise_model(x: Any, t: Any) -> Any:
    return x


GUIDED = diffusion.guided(lambda x, t, label: x, 3.0, null=0)
REFUSED: list[tuple[str, Any, dict[str, Any], str]] = [
    ("ddim", noise_model, {"num_steps": 1001}, r"num_steps is 1001, but the schedule has 1000 training steps"),
    ("ddim", noise_model, {"num_steps": 0}, r"num_steps is 0, expected a whole number of at least 1"),
    ("ddim", noise_model, {"eta": 1.5}, r"eta is 1.5, expected a number in \[0, 1\]"),
    ("ddim", noise_model, {"eta": -0.1}, r"eta is -0.1, expected a number in \[0, 1\]"),
    ("ddim", noise_model, {"times": [5, 9, 1]}, r"times\[0\] is 5 and times\[1\] is 9, expected times that fall"),
    ("ddim", noise_model, {"times": [1000, 1]}, r"times run from 1000 to 1, expected whole numbers from 999 down"),
    ("ddim", noise_model, {"times": [9, 1], "num_steps": 2}, r"times was given beside num_steps or spacing"),
    ("ddim", noise_model, {"spacing": "even"}, r"spacing is 'even', expected one of 'leading'"),
    ("ddim", noise_model, {"prediction": "epsilon"}, r"prediction is 'epsilon', expected one of 'noise', 'x0', 'v'"),
    ("ddim", noise_model, {"churn": 1.0}, r"an option of DDIM is 'churn', expected one of eta"),
    ("ddim", noise_model, {"sigma_data": 0.0}, r"sigma_data is 0.0, expected a finite number above 0"),
    ("ddim", 3, {}, r"predict is a int, expected a function"),
    ("ddim", noise_model, {"schedule": "linear"}, r"schedule is a str, expected one such as LinearBetas\(\)"),
    ("ddim", noise_model, {"schedule": diffusion.VP(), "spacing": "leading"}, r"spacing is 'leading', which picks"),
    ("ddim", noise_model, {"schedule": diffusion.RectifiedFlow()}, r"time 1 .* a smaller largest_time, or times="),
    ("ddim", noise_model, {"condition": 3}, r"arguments \(x.*, t.*\).* but is called as predict\(x, t, condition\)"),
    ("ddim", lambda x, t, label: x, {}, r"missing .*'label'; give the process its condition, or a function of x and t"),
    ("ddim", GUIDED, {}, r"condition is None, but the model is guided .*; give .* a condition like null, .* 0"),
    ("ddim", GUIDED, {"condition": (1, 2)}, r"condition has the shapes \(\(\), \(\)\), expected \(\), those of null"),
    ("heun", noise_model, {"times": [0.5, 0.0]}, r"times reach a level without noise before the last step"),
]


@pytest.mark.parametrize(("name", "predict", "options", "message"), REFUSED)
def test_what_is_refused(name: str, predict: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PROCESSES[name](predict, **options)


def test_schedules_that_a_process_cannot_use() -> None:
    with pytest.raises(ValueError, match=r"schedule is LinearBetas, which has no continuous time"):
        diffusion.EulerMaruyama(noise_model, LINEAR, 5).draw_inputs(jax.random.key(0), (2,))
    with pytest.raises(ValueError, match=r"schedule is LinearBetas, expected one in continuous time, because churn"):
        diffusion.EDM(noise_model, LINEAR, 5).draw_inputs(jax.random.key(0), (2,))
    with pytest.raises(ValueError, match=r"schedule is VP, in which the signal decays"):
        diffusion.AnnealedLangevin(noise_model, diffusion.VP(), 5).draw_inputs(jax.random.key(0), (2,))


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda x, t: x[None], r"predict returned shape \(1, 2\) for a sample of shape \(2,\)"),
        (lambda x, t: x.astype(int), r"predict returned dtype int32, expected floating point"),
        (
            lambda x, t: (x,),
            r"predict returned a tuple of float32\[2\], expected one array .* return the prediction alone",
        ),
        (lambda x, t: {"sample": x, "t": t}, r"predict returned a dict of float32\[2\], int32\[\], expected one array"),
        (lambda x, t: None, r"predict returned a NoneType of nothing, expected one array like the sample"),
    ],
)
def test_a_model_that_returns_something_else(predict: Any, message: str) -> None:
    process = diffusion.DDIM(predict, num_steps=3)
    with pytest.raises(ValueError, match=message):
        evaluate_sequential(process.transition, jnp.ones(2), process.draw_inputs(jax.random.key(0), (2,)))


def test_a_name_that_is_in_no_row() -> None:
    with pytest.raises(ValueError, match=r"process is 'dddm', expected one of ddpm, .*Did you mean 'ddpm'"):
        diffusion.find("dddm")


class ZeroTerminal(Discrete):
    """Betas that leave no signal at the last training step, as models that predict v are trained on."""

    def betas(self) -> np.ndarray:
        """Return betas that end in 1."""
        return np.append(np.linspace(1e-4, 0.02, 99), 1.0)


@pytest.mark.parametrize("name", PROCESSES)
def test_zero_terminal_signal(name: str) -> None:
    """A process starts there, or names what can; whatever a sentence says to do is then done, and helps."""
    make, schedule = PROCESSES[name], ZeroTerminal()
    given: dict[str, Any] = {"schedule": schedule, "num_steps": 5}
    from_noise = r"prediction='noise' says nothing .* a model that predicts 'v' or 'x0', or begin below .*'leading'"
    with pytest.raises(ValueError, match=from_noise):
        make(noise_model, spacing="trailing", **given)
    with pytest.raises(ValueError, match=r"'karras'.* no signal at training step 99 .*; expected 'leading', or 'trail"):
        make(noise_model, spacing="karras", **given)
    assert make(noise_model, spacing="leading", **given).visited[0] < 99
    given |= {"spacing": "trailing", "prediction": "v"}
    if name not in ("ddpm", "ddim", "annealed_langevin"):
        with pytest.raises(ValueError, match=r"use DDIM with eta=0, which does not, or begin below that time"):
            make(noise_model, **given)
        make = diffusion.DDIM
    starts = make(noise_model, **given)
    assert starts.visited[0] == 99
    if name in ("ddpm", "ddim"):
        assert all(np.isfinite(row).all() for row in starts.coefficients(starts.levels))


def test_a_bare_number_is_no_prediction_of_an_image() -> None:
    process = diffusion.DDIM(lambda x, t: 0.0, num_steps=3)
    with pytest.raises(ValueError, match=r"predict returned a float of float32\[\], expected one array"):
        process.step(jnp.ones(2), jax.tree.map(lambda leaf: leaf[0], process.draw_inputs(jax.random.key(0), (2,))))
