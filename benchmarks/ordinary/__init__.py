"""Ordinary models, written as their users would, with data that are simulated or ship with scikit-learn."""

from collections.abc import Callable

from benchmarks.ordinary import (
    capture_recapture,
    gaussian_processes,
    hierarchical,
    item_response,
    mixtures,
    nonlinear,
    odes,
    regressions,
    sparse,
    survival,
    time_series,
)
from benchmarks.ordinary.problem import Problem

KINDS: dict[str, tuple[Callable[[], Problem], ...]] = {
    "regression": (
        regressions.linear_diabetes,
        regressions.linear_diabetes_raw,
        regressions.linear_calendar_year,
        regressions.poisson_groups,
        regressions.poisson_exposure,
        regressions.negative_binomial,
        regressions.zero_inflated_poisson,
        regressions.gamma_costs,
        regressions.beta_proportions,
        regressions.logistic_breast_cancer,
        regressions.logistic_breast_cancer_raw,
        regressions.binomial_beetles,
        regressions.probit,
        regressions.ordinal,
        regressions.multinomial_iris,
        regressions.multinomial_wine,
        regressions.student_t,
        regressions.lognormal_income,
        regressions.median_regression,
        regressions.heteroscedastic,
    ),
    "nonlinear": (
        nonlinear.dose_response,
        nonlinear.growth_curves,
        nonlinear.spline,
        nonlinear.measurement_error,
        nonlinear.missing_ages,
        nonlinear.change_point,
    ),
    "hierarchical": (
        hierarchical.eight_schools_centred,
        hierarchical.eight_schools,
        hierarchical.radon_centred,
        hierarchical.rats_raw,
        hierarchical.lkj_slopes_centred,
        hierarchical.lkj_slopes,
        hierarchical.batting,
        hierarchical.pumps,
        hierarchical.seeds_overdispersed,
        hierarchical.crossed_effects,
        hierarchical.dirichlet_multinomial,
        hierarchical.ab_test,
    ),
    "mixture": (
        mixtures.mixture_of_two,
        mixtures.mixture_of_three,
        mixtures.mixture_unordered,
        mixtures.mixture_of_poissons,
        mixtures.outlier_mixture,
        mixtures.latent_class,
    ),
    "time series": (
        time_series.ar2,
        time_series.arma11,
        time_series.local_level,
        time_series.stochastic_volatility,
        time_series.garch,
        time_series.hidden_markov,
        time_series.trend_and_season,
    ),
    "ODE": (odes.lotka_volterra, odes.sir, odes.one_compartment),
    "Gaussian process": (
        gaussian_processes.gp_regression,
        gaussian_processes.gp_counts,
        gaussian_processes.gp_basis,
        gaussian_processes.spatial_car,
    ),
    "survival": (
        survival.exponential_survival,
        survival.weibull_survival,
        survival.lognormal_survival,
        survival.cox,
        survival.piecewise_hazard,
        survival.weibull_frailty,
    ),
    "item response": (
        item_response.rasch,
        item_response.two_parameter,
        item_response.paired_comparisons,
        item_response.football,
        item_response.one_factor,
        item_response.two_factors_rotated,
        item_response.lkj_iris,
    ),
    "capture-recapture": (
        capture_recapture.cormack_jolly_seber,
        capture_recapture.closed_population,
        capture_recapture.occupancy,
        capture_recapture.n_mixture,
    ),
    "sparse": (sparse.horseshoe, sparse.horseshoe_noncentred, sparse.regularised_horseshoe, sparse.bayesian_lasso),
}

MODELS = {build.__name__: build for builders in KINDS.values() for build in builders}
KIND_OF = {build.__name__: kind for kind, builders in KINDS.items() for build in builders}

# Posteriors that no chain can cross: the right answer is a verdict that says not good.
EXPECTED_NOT_GOOD = ("mixture_unordered", "two_factors_rotated")
