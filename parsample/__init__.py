"""parsample: Markov chains and diffusion samplers, evaluated in parallel over the chain.

The public names are the rows of one table. Each is imported on first use, so that `import parsample` costs little more
than `import jax`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from parsample._version import __version__
from parsample._xla import compile_small_loops_whole

compile_small_loops_whole()

# Public name -> (module, name in it); None for the module itself.
_PUBLIC: dict[str, tuple[str, str | None]] = {
    # engine
    "evaluate": ("parsample.engine.evaluate", "evaluate"),
    "evaluate_sequential": ("parsample.engine.evaluate", "evaluate_sequential"),
    "evaluate_nested": ("parsample.engine.nested", "evaluate_nested"),
    "Stopping": ("parsample.engine.rules", "Stopping"),
    "Conditioning": ("parsample.engine.rules", "Conditioning"),
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
    "Gaussian": ("parsample.engine.surrogates", "Gaussian"),
    "laplace": ("parsample.engine.surrogates", "laplace"),
    # the front door
    "sample": ("parsample.run.sample", "sample"),
    "resume": ("parsample.run.resume", "resume"),
    "Warmup": ("parsample.run.settings", "Warmup"),
    "Evaluation": ("parsample.run.settings", "Evaluation"),
    "Keep": ("parsample.run.settings", "Keep"),
    "Running": ("parsample.run.background", "Running"),
    "extend": ("parsample.run.extend", "extend"),
    "Settings": ("parsample.run.settings", "Settings"),
    "read_settings": ("parsample.run.settings", "read_settings"),
    "diffuse": ("parsample.run.diffuse", "diffuse"),
    "Diffused": ("parsample.run.diffuse", "Diffused"),
    "forecast": ("parsample.run.forecast", "forecast"),
    "plan": ("parsample.run.candidates", "plan"),
    "Planned": ("parsample.run.candidates", "Planned"),
    "MCMC": ("parsample.run.numpyro_mcmc", "MCMC"),
    "Kernel": ("parsample.run.numpyro_kernels", "Kernel"),
    "judge": ("parsample.results.judgement", "judge"),
    "Judgement": ("parsample.results.judgement", "Judgement"),
    "read_verdict": ("parsample.results.verdict", "read_verdict"),
    "summarize": ("parsample.results.summary", "summarize"),
    "save_trace": ("parsample.results.trace", "save_trace"),
    "load_trace": ("parsample.results.trace", "load_trace"),
    "plots": ("parsample.report.plots", None),
    "plot_trace_rank": ("parsample.report.plots", "plot_trace_rank"),
    "write_report": ("parsample.report.html", "write_report"),
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from parsample import samplers, targets
    from parsample.engine import matrices, methods
    from parsample.engine.diagnose import Diagnosis, diagnose
    from parsample.engine.evaluate import evaluate, evaluate_sequential
    from parsample.engine.methods import METHODS
    from parsample.engine.nested import evaluate_nested
    from parsample.engine.predictability import lyapunov_exponent
    from parsample.engine.rules import Conditioning, Stopping
    from parsample.engine.scan import solve_lds
    from parsample.engine.solution import ConvergenceError, Solution, Status
    from parsample.engine.surrogates import Gaussian, laplace
    from parsample.report import plots
    from parsample.report.html import write_report
    from parsample.report.plots import plot_trace_rank
    from parsample.results.judgement import Judgement, judge
    from parsample.results.summary import summarize
    from parsample.results.trace import load_trace, save_trace
    from parsample.results.verdict import read_verdict
    from parsample.run.background import Running
    from parsample.run.candidates import Planned, plan
    from parsample.run.diffuse import Diffused, diffuse
    from parsample.run.extend import extend
    from parsample.run.forecast import forecast
    from parsample.run.numpyro_kernels import Kernel
    from parsample.run.numpyro_mcmc import MCMC
    from parsample.run.resume import resume
    from parsample.run.sample import sample
    from parsample.run.settings import Evaluation, Keep, Settings, Warmup, read_settings
    from parsample.samplers import SAMPLERS
    from parsample.targets import TARGETS


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
