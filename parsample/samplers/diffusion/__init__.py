"""Diffusion: schedules, predictions, and the processes, one a file. A new one is a file and a row in `PROCESSES`."""

from parsample.engine.names import find_class
from parsample.samplers.diffusion.annealed_langevin import AnnealedLangevin
from parsample.samplers.diffusion.base import Process, ProcessTransition, StepInput
from parsample.samplers.diffusion.continuous import VE, VP, Karras, RectifiedFlow, SubVP
from parsample.samplers.diffusion.ddim import DDIM
from parsample.samplers.diffusion.ddpm import DDPM
from parsample.samplers.diffusion.denoisers import Denoiser, GaussianDenoiser, NormalDenoiser
from parsample.samplers.diffusion.digits_model import DigitsModel
from parsample.samplers.diffusion.dpm_solver_pp import DPMSolverPP
from parsample.samplers.diffusion.edm import EDM
from parsample.samplers.diffusion.euler_maruyama import EulerMaruyama
from parsample.samplers.diffusion.exact import MixtureModel
from parsample.samplers.diffusion.from_torch import from_torch
from parsample.samplers.diffusion.guidance import guided
from parsample.samplers.diffusion.heun import Heun
from parsample.samplers.diffusion.predictions import PREDICTIONS, convert
from parsample.samplers.diffusion.predictor_corrector import PredictorCorrector
from parsample.samplers.diffusion.schedules import CosineBetas, Level, LinearBetas, Schedule, SigmoidBetas
from parsample.samplers.diffusion.unipc import UniPC

PROCESSES: dict[str, type[Process]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler_maruyama": EulerMaruyama,
    "heun": Heun,
    "edm": EDM,
    "dpm_solver_pp": DPMSolverPP,
    "unipc": UniPC,
    "predictor_corrector": PredictorCorrector,
    "annealed_langevin": AnnealedLangevin,
}

__all__ = [
    "DDIM",
    "DDPM",
    "EDM",
    "PREDICTIONS",
    "PROCESSES",
    "VE",
    "VP",
    "AnnealedLangevin",
    "CosineBetas",
    "DPMSolverPP",
    "Denoiser",
    "DigitsModel",
    "EulerMaruyama",
    "GaussianDenoiser",
    "Heun",
    "Karras",
    "Level",
    "LinearBetas",
    "MixtureModel",
    "NormalDenoiser",
    "PredictorCorrector",
    "Process",
    "ProcessTransition",
    "RectifiedFlow",
    "Schedule",
    "SigmoidBetas",
    "StepInput",
    "SubVP",
    "UniPC",
    "convert",
    "find",
    "from_torch",
    "guided",
]


def find(process: str | type[Process]) -> type[Process]:
    """Return a process's class, given as such or by its name in `PROCESSES`.

    Raises:
        ValueError: no process has that name; the nearest one is suggested.
    """
    return find_class("process", process, PROCESSES, Process)
