"""Textbook loops in NumPy, written from the papers: betas and products in, states out, nothing of the package."""

import numpy as np


def ddpm(noise_model, betas, times, x, noise):
    """Ho et al., algorithm 2, over a subsequence of the training steps."""
    bar, states = np.cumprod(1 - betas), []
    for i, t in enumerate(times):
        before = bar[times[i + 1]] if i + 1 < len(times) else 1.0
        beta = 1 - bar[t] / before
        mean = (x - beta / np.sqrt(1 - bar[t]) * noise_model(x, t)) / np.sqrt(1 - beta)
        x = mean + np.sqrt((1 - before) / (1 - bar[t]) * beta) * noise[i]
        states.append(x)
    return np.stack(states)


def ddim(noise_model, betas, times, x, noise, eta):
    """Song et al., equations 12 and 16."""
    bar, states = np.cumprod(1 - betas), []
    for i, t in enumerate(times):
        before = bar[times[i + 1]] if i + 1 < len(times) else 1.0
        predicted = noise_model(x, t)
        x0 = (x - np.sqrt(1 - bar[t]) * predicted) / np.sqrt(bar[t])
        deviation = eta * np.sqrt((1 - before) / (1 - bar[t])) * np.sqrt(1 - bar[t] / before)
        x = np.sqrt(before) * x0 + np.sqrt(1 - before - deviation**2) * predicted + deviation * noise[i]
        states.append(x)
    return np.stack(states)


def euler_maruyama_vp(noise_model, times, x, noise, eta):
    """The reverse SDE of VP with beta from 0.1 to 20."""
    states = []
    for i in range(len(times) - 1):
        t, dt = times[i], times[i + 1] - times[i]
        beta = 0.1 + 19.9 * t
        sigma = np.sqrt(1 - np.exp(-0.1 * t - 9.95 * t**2))
        score = -noise_model(x, t) / sigma
        x = x + dt * (-0.5 * beta * x - 0.5 * (1 + eta**2) * beta * score) + eta * np.sqrt(-dt * beta) * noise[i]
        states.append(x)
    alpha2 = np.exp(-0.1 * times[-1] - 9.95 * times[-1] ** 2)
    states.append((x - np.sqrt(1 - alpha2) * noise_model(x, times[-1])) / np.sqrt(alpha2))
    return np.stack(states)


def edm(denoiser, sigmas, x, noise, churn):
    """Karras et al., algorithm 2, with S_min 0.05, S_max 50 and S_noise 1.003; `sigmas` end in 0."""
    states, steps = [], len(sigmas) - 1
    for i in range(steps):
        now, after = sigmas[i], sigmas[i + 1]
        gamma = min(churn / steps, np.sqrt(2) - 1) if 0.05 <= now <= 50 else 0.0
        hat = now * (1 + gamma)
        x = x + np.sqrt(hat**2 - now**2) * 1.003 * noise[i]
        slope = (x - denoiser(x, hat)) / hat
        new = x + (after - hat) * slope
        if after > 0:
            new = x + (after - hat) * 0.5 * (slope + (new - denoiser(new, after)) / after)
        x = new
        states.append(x)
    return np.stack(states)


def dpm_solver_pp(noise_model, betas, times, x, noise, stochastic):
    """Lu et al., 2M and SDE-2M, in the midpoint form; first order at the ends."""
    bar, states, old, old_h = np.cumprod(1 - betas), [], None, None
    for i, t in enumerate(times):
        alpha, sigma = np.sqrt(bar[t]), np.sqrt(1 - bar[t])
        x0 = (x - sigma * noise_model(x, t)) / alpha
        if i + 1 == len(times):
            states.append(x0)
            break
        alpha_s, sigma_s = np.sqrt(bar[times[i + 1]]), np.sqrt(1 - bar[times[i + 1]])
        h = np.log(alpha_s / sigma_s) - np.log(alpha / sigma)
        extra = 0 if old is None else 0.5 * (x0 - old) / (old_h / h)
        if stochastic:
            drift = alpha_s * (1 - np.exp(-2 * h)) * (x0 + extra)
            x = sigma_s / sigma * np.exp(-h) * x + drift + sigma_s * np.sqrt(1 - np.exp(-2 * h)) * noise[i]
        else:
            x = sigma_s / sigma * x - alpha_s * (np.exp(-h) - 1) * (x0 + extra)
        old, old_h = x0, h
        states.append(x)
    return np.stack(states)


def predictor_corrector_ve(score_model, times, x, first, second, snr=0.16):
    """Song et al., algorithm 2, with sigma from 0.01 to 50, and Tweedie's formula for the last predictor."""
    states = []
    for i, t in enumerate(times):
        score = score_model(x, t)
        length = 2 * (snr * np.linalg.norm(first[i]) / np.linalg.norm(score)) ** 2
        x = x + length * score + np.sqrt(2 * length) * first[i]
        if i + 1 == len(times):
            states.append(x + (0.01 * 5000**t) ** 2 * score_model(x, t))
            break
        after, g2 = times[i + 1], 2 * np.log(5000) * (0.01 * 5000**t) ** 2
        x = x + (t - after) * g2 * score_model(x, t) + np.sqrt((t - after) * g2) * second[i]
        states.append(x)
    return np.stack(states)


def annealed_langevin(score_model, sigmas, repeats, step_size, x, noise):
    """Song & Ermon, algorithm 1, and one step of Tweedie's formula."""
    states: list[np.ndarray] = []
    for sigma in sigmas:
        length = step_size * (sigma / sigmas[-1]) ** 2
        for _ in range(repeats):
            x = x + 0.5 * length * score_model(x, sigma) + np.sqrt(length) * noise[len(states)]
            states.append(x)
    states.append(x + sigmas[-1] ** 2 * score_model(x, sigmas[-1]))
    return np.stack(states)
