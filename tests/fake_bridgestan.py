"""What the recipe for Stan uses of BridgeStan, for eight schools alone, so that the recipe runs without Stan.

Names, arguments and returned values are those of BridgeStan 2.9's `StanModel`. Formulas are written out in NumPy.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np


class StanModel:
    """Eight schools, not centred: unconstrained mu, log tau and raw, with the log-Jacobian of tau."""

    def __init__(self, model_lib: str, data: str):
        """Read the data; the program is only looked for."""
        assert "tau ~ cauchy(0, 5);" in Path(model_lib).read_text()
        entries = json.loads(data)
        self.y, self.sigma = np.asarray(entries["y"], float), np.asarray(entries["sigma"], float)

    def param_unc_num(self) -> int:
        return 2 + len(self.y)

    def param_names(self, *, include_tp: bool = False, include_gq: bool = False) -> list[str]:
        numbers = range(1, 1 + len(self.y))
        return ["mu", "tau", *(f"raw.{n}" for n in numbers), *(f"theta.{n}" for n in numbers if include_tp)]

    def param_constrain(self, theta_unc: Any, *, include_tp: bool = False) -> np.ndarray:
        self._check(theta_unc)
        mu, tau, raw = theta_unc[0], np.exp(theta_unc[1]), theta_unc[2:]
        return np.concatenate([[mu, tau], raw, *([mu + tau * raw] if include_tp else [])])

    def log_density_gradient(self, theta_unc: Any) -> tuple[float, np.ndarray]:
        self._check(theta_unc)
        mu, tau, raw = theta_unc[0], np.exp(theta_unc[1]), theta_unc[2:]
        if tau > 1e6:
            raise RuntimeError("Exception: normal_lpdf: Location parameter is inf")
        errors = (self.y - mu - tau * raw) / self.sigma
        pull = errors / self.sigma
        value = -(mu**2) / 50 - np.log1p(tau**2 / 25) + theta_unc[1] - raw @ raw / 2 - errors @ errors / 2
        of_tau = -2 * tau**2 / (25 + tau**2) + 1 + tau * (raw @ pull)
        return float(value), np.concatenate([[-mu / 25 + pull.sum(), of_tau], tau * pull - raw])

    def log_density_hessian_vector_product(self, theta_unc: Any, v: Any) -> tuple[float, np.ndarray]:
        """By finite differences, as BridgeStan's own by default."""
        step = 1e-5
        above, below = (self.log_density_gradient(theta_unc + sign * step * v)[1] for sign in (1, -1))
        return self.log_density_gradient(theta_unc)[0], (above - below) / (2 * step)

    def _check(self, vector: Any) -> None:
        """What ctypes refuses."""
        assert isinstance(vector, np.ndarray)
        assert vector.dtype == np.float64
        assert vector.flags.c_contiguous
