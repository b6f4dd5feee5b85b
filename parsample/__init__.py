"""parsample: Markov chains and diffusion samplers, evaluated in parallel over the chain.

The public names are the rows of one table. Each is imported on first use, so that `import parsample` costs little more
than `import jax`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> (module, name in it); None for the module itself.
_PUBLIC: dict[str, tuple[str, str | None]] = {
    # engine
    "evaluate": ("parsample.engine.evaluate", "evaluate"),
    "evaluate_sequential": ("parsample.engine.evaluate", "evaluate_sequential"),
    "evaluate_nested": ("parsample.engine.nested", "evaluate_nested"),
    "Solution": ("parsample.engine.solution", "Solution"),
    "Status": ("parsample.engine.solution", "Status"),
    "ConvergenceError": ("parsample.engine.solution", "ConvergenceError"),
    "solve_lds": ("parsample.engine.scan", "solve_lds"),
    "diagnose": ("parsample.engine.diagnose", "diagnose"),
    "Diagnosis": ("parsample.engine.diagnose", "Diagnosis"),
    "lyapunov_exponent": ("parsample.engine.predictability", "lyapunov_exponent"),
    "matrices": ("parsample.engine.matrices", None),
    "methods": ("parsample.engine.methods", None),
    "METHODS": ("parsample.engine.methods", "METHODS"),
    # what people extend
    "samplers": ("parsample.samplers", None),
    "SAMPLERS": ("parsample.samplers", "SAMPLERS"),
    "targets": ("parsample.targets", None),
    "TARGETS": ("parsample.targets", "TARGETS"),
    "Gaussian": ("parsample.surrogates", "Gaussian"),
    "laplace": ("parsample.surrogates", "laplace"),
    # the front door
    "sample": ("parsample.sampling", "sample"),
    "resume": ("parsample.resuming", "resume"),
    "Settings": ("parsample.settings", "Settings"),
    "read_settings": ("parsample.settings", "read_settings"),
    "diffuse": ("parsample.diffusing", "diffuse"),
    "Diffused": ("parsample.diffusing", "Diffused"),
    "forecast": ("parsample.forecasting", "forecast"),
    "MCMC": ("parsample.mcmc", "MCMC"),
    "Kernel": ("parsample.mcmc", "Kernel"),
    "read_verdict": ("parsample.verdict", "read_verdict"),
    "summarize": ("parsample.diagnostics", "summarize"),
    "save_trace": ("parsample.trace", "save_trace"),
    "load_trace": ("parsample.trace", "load_trace"),
    "plots": ("parsample.plots", None),
    "plot_trace_rank": ("parsample.plots", "plot_trace_rank"),
    "write_report": ("parsample.html_report", "write_report"),
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from parsample import plots, samplers, targets
    from parsample.diagnostics import summarize
    from parsample.diffusing import Diffused, diffuse
    from parsample.engine import matrices, methods
    from parsample.engine.diagnose import Diagnosis, diagnose
    from parsample.engine.evaluate import evaluate, evaluate_sequential
    from parsample.engine.methods import METHODS
    from parsample.engine.nested import evaluate_nested
    from parsample.engine.predictability import lyapunov_exponent
    from parsample.engine.scan import solve_lds
    from parsample.engine.solution import ConvergenceError, Solution, Status
    from parsample.forecasting import forecast
    from parsample.html_report import write_report
    from parsample.mcmc import MCMC, Kernel
    from parsample.plots import plot_trace_rank
    from parsample.resuming import resume
    from parsample.samplers import SAMPLERS
    from parsample.sampling import sample
    from parsample.settings import Settings, read_settings
    from parsample.surrogates import Gaussian, laplace
    from parsample.targets import TARGETS
    from parsample.trace import load_trace, save_trace
    from parsample.verdict import read_verdict


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'parsample' has no attribute {name!r}; its names are {', '.join(__all__)}.")
    module, attribute = _PUBLIC[name]
    found = importlib.import_module(module)
    value = found if attribute is None else getattr(found, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
