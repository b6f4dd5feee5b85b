"""Annealed Langevin dynamics: many small steps at each of a few noise levels."""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from parsample.engine.options import whole
from parsample.samplers.diffusion.affine import Affine
from parsample.samplers.diffusion.base import Process, cleaned, split
from parsample.samplers.diffusion.continuous import Karras
from parsample.samplers.diffusion.schedules import Level, Schedule


class AnnealedLangevin(Affine):
    """x + a / 2 score + sqrt(a) noise with a = step_size sigma^2 / smallest sigma^2, so many times a level.

    The last step, from the smallest level, is the denoised sample.

    Args: those of `Process`, with a schedule without decay of the signal (Karras by default, VE); `num_steps` counts
        levels, and
        step_size: at the smallest level, in squared units of the data.
        repeats: steps a level.

    Raises:
        ValueError: a schedule in which the signal decays.

    Source: Song & Ermon 2019, algorithm 1; Jolicoeur-Martineau et al. 2021 for the last step.
    """

    if TYPE_CHECKING:  # Type checkers would make one from the fields.
        __init__ = Process.__init__

    option_rows: ClassVar = (("step_size", 2e-5, 0.0, np.inf), ("repeats", 100, 1, 1e9))

    def default_schedule(self) -> Schedule:
        """Return levels from 1 to 0.01."""
        return Karras(0.01, 1.0)

    def default_steps(self) -> int:
        """Return 10 levels."""
        return 10

    def default_spacing(self, schedule: Schedule) -> str:
        """Return Karras's, or for VE the geometric one that is even in time."""
        return "karras" if isinstance(schedule, Karras) else "linspace"

    @property
    def num_steps(self) -> int:
        """How many steps there are: levels times repeats, and one."""
        return len(self.visited) * int(self.options[1]) + 1

    @property
    def levels(self) -> Level:
        """The level of every step, the last one once more, and that of a clean sample."""
        visited = self.schedule.level(np.asarray(self.visited))
        if (visited.alpha != 1).any():
            raise ValueError(
                f"schedule is {type(self.schedule).__name__}, in which the signal decays; expected Karras or VE."
            )
        return cleaned(Level(*(np.append(np.repeat(row, int(self.options[1])), row[-1]) for row in visited)))

    @property
    def noise_levels(self) -> np.ndarray:
        """The scale of an error at every step: that of its own level, which it does not leave but for the last."""
        now, after = split(self.levels)
        return np.append(self._scale(now)[:-1], self._scale(after)[-1])

    def weights(self, now: Level, next: Level) -> tuple:
        """Return the Langevin step, with score = (x0 - x) / sigma^2."""
        length = self.options[0] * (now.sigma / now.sigma[-1]) ** 2
        pull = 0.5 * length / now.sigma**2
        return 1 - pull, pull, np.sqrt(length)

    def _check_options(self, options: dict[str, Any]) -> tuple[float, ...]:
        if "repeats" in options:
            whole("repeats", options["repeats"], "it is how many steps are made at a level")
        return super()._check_options(options)
