"""Pictures of the draws and of their evaluation, as matplotlib axes; `plot_trace_rank` is a whole figure."""

from parsample.report.plots.draws import (
    plot_acceptance,
    plot_autocorrelation,
    plot_energy,
    plot_pair,
    plot_rank,
    plot_trace,
)
from parsample.report.plots.evaluation import plot_evaluations, plot_residuals, plot_window, plot_work
from parsample.report.plots.trace_rank import check_figure_path, plot_trace_rank
from parsample.report.plots.warmup import plot_warmup_acceptance, plot_warmup_step_size

__all__ = [
    "check_figure_path",
    "plot_acceptance",
    "plot_autocorrelation",
    "plot_energy",
    "plot_evaluations",
    "plot_pair",
    "plot_rank",
    "plot_residuals",
    "plot_trace",
    "plot_trace_rank",
    "plot_warmup_acceptance",
    "plot_warmup_step_size",
    "plot_window",
    "plot_work",
]
