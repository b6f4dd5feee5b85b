"""Distributions of the three libraries, constructed simply: those with a density, and those that are refused."""

from collections.abc import Callable
from typing import Any

import distrax
import jax.numpy as jnp
import numpyro.distributions as dist
from tensorflow_probability.substrates import jax as tfp

tfd, tfb = tfp.distributions, tfp.bijectors

MEAN, SCALES = jnp.asarray([1.0, -2.0]), jnp.asarray([0.5, 2.0])
TRIANGLE = jnp.asarray([[1.0, 0.0], [0.5, 0.8]])
COVARIANCE = TRIANGLE @ TRIANGLE.T
WEIGHTS = jnp.asarray([0.3, 0.7])
SIMPLEX = jnp.asarray([2.0, 3.0, 4.0])


def kernel() -> Any:
    return tfp.math.psd_kernels.ExponentiatedQuadratic(jnp.asarray(1.0), jnp.asarray(1.0))


def joint() -> Any:
    return tfd.JointDistributionNamed(
        {
            "scale": tfd.HalfNormal(1.0),
            "low": tfd.Normal(0.0, 1.0),
            "x": lambda low, scale: tfd.Uniform(low, low + scale),
        }
    )


# Name -> how to make it. Each has a density, of which the target has to be the pushed-forward one.
DENSITIES: dict[str, Callable[[], Any]] = {
    "distrax.Beta": lambda: distrax.Beta(2.0, 3.0),
    "distrax.Dirichlet": lambda: distrax.Dirichlet(SIMPLEX),
    "distrax.Gamma": lambda: distrax.Gamma(2.0, 3.0),
    "distrax.Gumbel": lambda: distrax.Gumbel(1.0, 2.0),
    "distrax.Laplace": lambda: distrax.Laplace(1.0, 2.0),
    "distrax.LogStddevNormal": lambda: distrax.LogStddevNormal(1.0, 0.5),
    "distrax.Logistic": lambda: distrax.Logistic(1.0, 2.0),
    "distrax.Normal": lambda: distrax.Normal(1.0, 2.0),
    "distrax.Uniform": lambda: distrax.Uniform(-1.0, 2.0),
    "distrax.VonMises": lambda: distrax.VonMises(1.0, 2.0),
    "distrax.MultivariateNormalDiag": lambda: distrax.MultivariateNormalDiag(MEAN, SCALES),
    "distrax.MultivariateNormalDiagPlusLowRank": lambda: distrax.MultivariateNormalDiagPlusLowRank(
        MEAN, SCALES, jnp.ones((2, 1))
    ),
    "distrax.MultivariateNormalFullCovariance": lambda: distrax.MultivariateNormalFullCovariance(MEAN, COVARIANCE),
    "distrax.MultivariateNormalTri": lambda: distrax.MultivariateNormalTri(MEAN, TRIANGLE),
    "distrax.MultivariateNormalFromBijector": lambda: distrax.MultivariateNormalFromBijector(
        MEAN, distrax.DiagLinear(SCALES)
    ),
    "distrax.Independent": lambda: distrax.Independent(distrax.Uniform(MEAN, MEAN + SCALES), 1),
    "distrax.Joint": lambda: distrax.Joint({"a": distrax.Gamma(2.0, 1.0), "b": (distrax.Normal(0.0, 1.0),)}),
    "distrax.MixtureOfTwo": lambda: distrax.MixtureOfTwo(0.3, distrax.Normal(-1.0, 1.0), distrax.Normal(2.0, 0.5)),
    "distrax.MixtureSameFamily": lambda: distrax.MixtureSameFamily(
        distrax.Categorical(probs=WEIGHTS), distrax.Gamma(jnp.asarray([1.5, 3.0]), jnp.asarray([1.0, 2.0]))
    ),
    "distrax.Transformed": lambda: distrax.Transformed(
        distrax.Gamma(2.0, 1.0), distrax.Block(distrax.ScalarAffine(1.0, 2.0), 0)
    ),
    "distrax.Transformed.exp": lambda: distrax.Transformed(
        distrax.MultivariateNormalTri(MEAN, TRIANGLE), distrax.Block(distrax.Lambda(jnp.exp), 1)
    ),
    "tfd.Beta": lambda: tfd.Beta(2.0, 3.0),
    "tfd.BetaQuotient": lambda: tfd.BetaQuotient(3.0, 3.0, 4.0, 5.0),
    "tfd.Cauchy": lambda: tfd.Cauchy(1.0, 2.0),
    "tfd.Chi": lambda: tfd.Chi(3.0),
    "tfd.Chi2": lambda: tfd.Chi2(3.0),
    "tfd.CholeskyLKJ": lambda: tfd.CholeskyLKJ(3, 2.0),
    "tfd.ContinuousBernoulli": lambda: tfd.ContinuousBernoulli(probs=0.3),
    "tfd.Dirichlet": lambda: tfd.Dirichlet(SIMPLEX),
    "tfd.DoublesidedMaxwell": lambda: tfd.DoublesidedMaxwell(1.0, 2.0),
    "tfd.ExpGamma": lambda: tfd.ExpGamma(2.0, 3.0),
    "tfd.ExpInverseGamma": lambda: tfd.ExpInverseGamma(2.0, 3.0),
    "tfd.ExpRelaxedOneHotCategorical": lambda: tfd.ExpRelaxedOneHotCategorical(1.0, probs=SIMPLEX / 9),
    "tfd.Exponential": lambda: tfd.Exponential(2.0),
    "tfd.ExponentiallyModifiedGaussian": lambda: tfd.ExponentiallyModifiedGaussian(1.0, 2.0, 0.5),
    "tfd.FlatDirichlet": lambda: tfd.FlatDirichlet([3]),
    "tfd.Gamma": lambda: tfd.Gamma(2.0, 3.0),
    "tfd.GammaGamma": lambda: tfd.GammaGamma(2.0, 3.0, 1.0),
    "tfd.GaussianProcess": lambda: tfd.GaussianProcess(
        kernel(), index_points=jnp.asarray([[0.0], [1.0]]), observation_noise_variance=0.1
    ),
    "tfd.GeneralizedExtremeValue": lambda: tfd.GeneralizedExtremeValue(1.0, 2.0, 0.3),
    "tfd.GeneralizedNormal": lambda: tfd.GeneralizedNormal(1.0, 2.0, 1.5),
    "tfd.GeneralizedPareto": lambda: tfd.GeneralizedPareto(1.0, 2.0, 0.3),
    "tfd.GeneralizedPareto.bounded": lambda: tfd.GeneralizedPareto(1.0, 2.0, -0.3),
    "tfd.Gumbel": lambda: tfd.Gumbel(1.0, 2.0),
    "tfd.HalfCauchy": lambda: tfd.HalfCauchy(0.0, 2.0),
    "tfd.HalfNormal": lambda: tfd.HalfNormal(2.0),
    "tfd.HalfStudentT": lambda: tfd.HalfStudentT(4.0, 0.0, 2.0),
    "tfd.Horseshoe": lambda: tfd.Horseshoe(2.0),
    "tfd.Independent": lambda: tfd.Independent(tfd.Gamma(jnp.asarray([2.0, 3.0]), 1.0), 1),
    "tfd.InverseGamma": lambda: tfd.InverseGamma(3.0, 2.0),
    "tfd.InverseGaussian": lambda: tfd.InverseGaussian(1.0, 2.0),
    "tfd.JohnsonSU": lambda: tfd.JohnsonSU(0.5, 1.5, 1.0, 2.0),
    "tfd.JointDistributionNamed": joint,
    "tfd.JointDistributionSequential": lambda: tfd.JointDistributionSequential(
        [tfd.Gamma(2.0, 1.0), lambda a: tfd.Normal(0.0, a)]
    ),
    "tfd.Kumaraswamy": lambda: tfd.Kumaraswamy(2.0, 3.0),
    "tfd.LKJ": lambda: tfd.LKJ(3, 2.0),
    "tfd.LambertWNormal": lambda: tfd.LambertWNormal(1.0, 2.0, 0.2),
    "tfd.Laplace": lambda: tfd.Laplace(1.0, 2.0),
    "tfd.LinearGaussianStateSpaceModel": lambda: tfd.LinearGaussianStateSpaceModel(
        2,
        jnp.eye(1),
        tfd.MultivariateNormalDiag(jnp.zeros(1), jnp.ones(1)),
        jnp.eye(1),
        tfd.MultivariateNormalDiag(jnp.zeros(1), jnp.ones(1)),
        tfd.MultivariateNormalDiag(jnp.zeros(1), jnp.ones(1)),
    ),
    "tfd.LogLogistic": lambda: tfd.LogLogistic(1.0, 0.5),
    "tfd.LogNormal": lambda: tfd.LogNormal(1.0, 0.5),
    "tfd.Logistic": lambda: tfd.Logistic(1.0, 2.0),
    "tfd.LogitNormal": lambda: tfd.LogitNormal(1.0, 0.5),
    "tfd.MarkovChain": lambda: tfd.MarkovChain(tfd.Normal(0.0, 1.0), lambda _, x: tfd.Normal(x, 1.0), 3),
    "tfd.Mixture": lambda: tfd.Mixture(tfd.Categorical(probs=WEIGHTS), [tfd.Normal(-1.0, 1.0), tfd.Normal(2.0, 0.5)]),
    "tfd.MixtureSameFamily": lambda: tfd.MixtureSameFamily(
        tfd.Categorical(probs=WEIGHTS), tfd.Gamma(jnp.asarray([1.5, 3.0]), 1.0)
    ),
    "tfd.Moyal": lambda: tfd.Moyal(1.0, 2.0),
    "tfd.MultivariateNormalDiag": lambda: tfd.MultivariateNormalDiag(MEAN, SCALES),
    "tfd.MultivariateNormalDiagPlusLowRank": lambda: tfd.MultivariateNormalDiagPlusLowRank(
        MEAN, SCALES, scale_perturb_factor=jnp.ones((2, 1))
    ),
    "tfd.MultivariateNormalDiagPlusLowRankCovariance": lambda: tfd.MultivariateNormalDiagPlusLowRankCovariance(
        MEAN, SCALES, jnp.ones((2, 1))
    ),
    "tfd.MultivariateNormalFullCovariance": lambda: tfd.MultivariateNormalFullCovariance(MEAN, COVARIANCE),
    "tfd.MultivariateNormalTriL": lambda: tfd.MultivariateNormalTriL(MEAN, TRIANGLE),
    "tfd.NoncentralChi2": lambda: tfd.NoncentralChi2(3.0, 2.0),
    "tfd.Normal": lambda: tfd.Normal(1.0, 2.0),
    "tfd.NormalInverseGaussian": lambda: tfd.NormalInverseGaussian(0.0, 1.0, 2.0, 0.5),
    "tfd.PERT": lambda: tfd.PERT(-1.0, 0.5, 2.0),
    "tfd.Pareto": lambda: tfd.Pareto(3.0, 2.0),
    "tfd.RelaxedBernoulli": lambda: tfd.RelaxedBernoulli(1.0, probs=0.3),
    "tfd.RelaxedOneHotCategorical": lambda: tfd.RelaxedOneHotCategorical(1.0, probs=SIMPLEX / 9),
    "tfd.Sample": lambda: tfd.Sample(tfd.Exponential(2.0), 2),
    "tfd.SigmoidBeta": lambda: tfd.SigmoidBeta(2.0, 3.0),
    "tfd.SinhArcsinh": lambda: tfd.SinhArcsinh(1.0, 2.0, 0.5, 1.2),
    "tfd.StudentT": lambda: tfd.StudentT(4.0, 1.0, 2.0),
    "tfd.StudentTProcess": lambda: tfd.StudentTProcess(
        4.0, kernel(), index_points=jnp.asarray([[0.0], [1.0]]), observation_noise_variance=0.1
    ),
    "tfd.TransformedDistribution": lambda: tfd.TransformedDistribution(tfd.Gamma(2.0, 1.0), tfb.Shift(-1.0)),
    "tfd.Triangular": lambda: tfd.Triangular(-1.0, 2.0, 0.5),
    "tfd.TruncatedCauchy": lambda: tfd.TruncatedCauchy(1.0, 2.0, -1.0, 3.0),
    "tfd.TruncatedNormal": lambda: tfd.TruncatedNormal(1.0, 2.0, -1.0, 3.0),
    "tfd.TwoPieceNormal": lambda: tfd.TwoPieceNormal(1.0, 2.0, 1.5),
    "tfd.TwoPieceStudentT": lambda: tfd.TwoPieceStudentT(4.0, 1.0, 2.0, 1.5),
    "tfd.Uniform": lambda: tfd.Uniform(-1.0, 2.0),
    "tfd.VonMises": lambda: tfd.VonMises(1.0, 2.0),
    "tfd.Weibull": lambda: tfd.Weibull(2.0, 3.0),
    "tfd.WishartTriL": lambda: tfd.WishartTriL(4.0, TRIANGLE),
    "numpyro.AsymmetricLaplace": lambda: dist.AsymmetricLaplace(1.0, 2.0, 1.5),
    "numpyro.AsymmetricLaplaceQuantile": lambda: dist.AsymmetricLaplaceQuantile(1.0, 2.0, 0.3),
    "numpyro.Beta": lambda: dist.Beta(2.0, 3.0),
    "numpyro.BetaProportion": lambda: dist.BetaProportion(0.4, 5.0),
    "numpyro.CAR": lambda: dist.CAR(0.0, 0.3, 1.0, jnp.asarray([[0.0, 1.0], [1.0, 0.0]])),
    "numpyro.Cauchy": lambda: dist.Cauchy(1.0, 2.0),
    "numpyro.Chi2": lambda: dist.Chi2(3.0),
    "numpyro.Dagum": lambda: dist.Dagum(2.0, 1.0, 3.0),
    "numpyro.Dirichlet": lambda: dist.Dirichlet(SIMPLEX),
    "numpyro.DoublyTruncatedPowerLaw": lambda: dist.DoublyTruncatedPowerLaw(-2.0, 1.0, 3.0),
    "numpyro.Exponential": lambda: dist.Exponential(2.0),
    "numpyro.FoldedDistribution": lambda: dist.FoldedDistribution(dist.Normal(1.0, 2.0)),
    "numpyro.Gamma": lambda: dist.Gamma(2.0, 3.0),
    "numpyro.GaussianCopulaBeta": lambda: dist.GaussianCopulaBeta(
        jnp.full(2, 2.0), jnp.full(2, 3.0), correlation_matrix=jnp.asarray([[1.0, 0.4], [0.4, 1.0]])
    ),
    "numpyro.GaussianRandomWalk": lambda: dist.GaussianRandomWalk(1.0, 3),
    "numpyro.Gompertz": lambda: dist.Gompertz(1.0, 2.0),
    "numpyro.Gumbel": lambda: dist.Gumbel(1.0, 2.0),
    "numpyro.HalfCauchy": lambda: dist.HalfCauchy(2.0),
    "numpyro.HalfNormal": lambda: dist.HalfNormal(2.0),
    "numpyro.Independent": lambda: dist.Uniform(MEAN, MEAN + SCALES).to_event(1),
    "numpyro.InverseGamma": lambda: dist.InverseGamma(3.0, 2.0),
    "numpyro.InverseWishart": lambda: dist.InverseWishart(5.0, scale_tril=TRIANGLE),
    "numpyro.Kumaraswamy": lambda: dist.Kumaraswamy(2.0, 3.0),
    "numpyro.LKJ": lambda: dist.LKJ(3, 2.0),
    "numpyro.LKJCholesky": lambda: dist.LKJCholesky(3, 2.0),
    "numpyro.Laplace": lambda: dist.Laplace(1.0, 2.0),
    "numpyro.LeftTruncatedDistribution": lambda: dist.LeftTruncatedDistribution(dist.Normal(0.0, 1.0), low=0.5),
    "numpyro.LeftTruncatedGamma": lambda: dist.LeftTruncatedGamma(dist.Gamma(2.0, 1.0), low=0.5),
    "numpyro.Levy": lambda: dist.Levy(1.0, 2.0),
    "numpyro.LogNormal": lambda: dist.LogNormal(1.0, 0.5),
    "numpyro.LogUniform": lambda: dist.LogUniform(1.0, 3.0),
    "numpyro.Logistic": lambda: dist.Logistic(1.0, 2.0),
    "numpyro.LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(MEAN, jnp.ones((2, 1)), SCALES),
    "numpyro.LowerTruncatedPowerLaw": lambda: dist.LowerTruncatedPowerLaw(-3.0, 1.0),
    "numpyro.MatrixNormal": lambda: dist.MatrixNormal(jnp.zeros((2, 2)), TRIANGLE, TRIANGLE),
    "numpyro.MixtureGeneral": lambda: dist.MixtureGeneral(
        dist.Categorical(WEIGHTS), [dist.Normal(-1.0, 1.0), dist.Normal(2.0, 0.5)]
    ),
    "numpyro.MixtureSameFamily": lambda: dist.MixtureSameFamily(
        dist.Categorical(WEIGHTS), dist.Gamma(jnp.asarray([1.5, 3.0]), 1.0)
    ),
    "numpyro.MultivariateNormal": lambda: dist.MultivariateNormal(MEAN, scale_tril=TRIANGLE),
    "numpyro.MultivariateStudentT": lambda: dist.MultivariateStudentT(4.0, MEAN, TRIANGLE),
    "numpyro.Normal": lambda: dist.Normal(1.0, 2.0),
    "numpyro.Pareto": lambda: dist.Pareto(2.0, 3.0),
    "numpyro.RelaxedBernoulli": lambda: dist.RelaxedBernoulli(jnp.asarray(1.0), probs=jnp.asarray(0.3)),
    "numpyro.RightTruncatedDistribution": lambda: dist.RightTruncatedDistribution(dist.Normal(0.0, 1.0), high=0.5),
    "numpyro.RightTruncatedGamma": lambda: dist.RightTruncatedGamma(dist.Gamma(2.0, 1.0), high=2.5),
    "numpyro.SoftLaplace": lambda: dist.SoftLaplace(1.0, 2.0),
    "numpyro.StudentT": lambda: dist.StudentT(4.0, 1.0, 2.0),
    "numpyro.TransformedDistribution": lambda: dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), dist.transforms.ExpTransform()
    ),
    "numpyro.TruncatedPolyaGamma": lambda: dist.TruncatedPolyaGamma(),
    "numpyro.TwoSidedTruncatedDistribution": lambda: dist.TwoSidedTruncatedDistribution(
        dist.Normal(0.0, 1.0), low=-0.5, high=1.5
    ),
    "numpyro.TwoSidedTruncatedGamma": lambda: dist.TwoSidedTruncatedGamma(dist.Gamma(2.0, 1.0), low=0.5, high=2.5),
    "numpyro.Uniform": lambda: dist.Uniform(-1.0, 2.0),
    "numpyro.VonMises": lambda: dist.VonMises(1.0, 2.0),
    "numpyro.Weibull": lambda: dist.Weibull(2.0, 3.0),
    "numpyro.Wishart": lambda: dist.Wishart(4.0, scale_tril=TRIANGLE),
    "numpyro.WishartCholesky": lambda: dist.WishartCholesky(4.0, scale_tril=TRIANGLE),
    "numpyro.InverseWishartCholesky": lambda: dist.InverseWishartCholesky(5.0, scale_tril=TRIANGLE),
    "numpyro.ZeroSumNormal": lambda: dist.ZeroSumNormal(1.0, (3,)),
    "numpyro.SineBivariateVonMises": lambda: dist.SineBivariateVonMises(0.5, 1.0, 2.0, 2.0, correlation=0.5),
    "numpyro.SineSkewed": lambda: dist.SineSkewed(
        dist.VonMises(jnp.zeros(2), jnp.ones(2)).to_event(1), jnp.asarray([0.3, 0.2])
    ),
    "numpyro.EulerMaruyama": lambda: dist.EulerMaruyama(
        jnp.asarray([0.0, 0.5, 1.0]), lambda x, t: (-x, 1.0), dist.Normal(0.0, 1.0)
    ),
}
# Name -> how to make it, and words of the sentence that refuses it.
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {}


def _refuse(words: str, **rows: Callable[[], Any]) -> None:
    REFUSED.update({name.replace("__", "."): (make, words) for name, make in rows.items()})


_refuse(
    "is discrete",
    distrax__Bernoulli=lambda: distrax.Bernoulli(probs=0.3),
    distrax__Categorical=lambda: distrax.Categorical(probs=WEIGHTS),
    distrax__EpsilonGreedy=lambda: distrax.EpsilonGreedy(SIMPLEX, 0.1),
    distrax__Greedy=lambda: distrax.Greedy(SIMPLEX),
    distrax__Multinomial=lambda: distrax.Multinomial(5, probs=WEIGHTS),
    distrax__Softmax=lambda: distrax.Softmax(SIMPLEX),
    distrax__Independent=lambda: distrax.Independent(distrax.Bernoulli(probs=WEIGHTS), 1),
    tfd__Bernoulli=lambda: tfd.Bernoulli(probs=0.3),
    tfd__BetaBinomial=lambda: tfd.BetaBinomial(5.0, 2.0, 3.0),
    tfd__Binomial=lambda: tfd.Binomial(5.0, probs=0.3),
    tfd__Categorical=lambda: tfd.Categorical(probs=WEIGHTS),
    tfd__DirichletMultinomial=lambda: tfd.DirichletMultinomial(5.0, SIMPLEX),
    tfd__Geometric=lambda: tfd.Geometric(probs=0.3),
    tfd__Multinomial=lambda: tfd.Multinomial(5.0, probs=WEIGHTS),
    tfd__NegativeBinomial=lambda: tfd.NegativeBinomial(5.0, probs=0.3),
    tfd__OrderedLogistic=lambda: tfd.OrderedLogistic(jnp.asarray([-1.0, 1.0]), 0.0),
    tfd__PlackettLuce=lambda: tfd.PlackettLuce(SIMPLEX),
    tfd__Poisson=lambda: tfd.Poisson(3.0),
    tfd__PoissonLogNormalQuadratureCompound=lambda: tfd.PoissonLogNormalQuadratureCompound(1.0, 0.5),
    tfd__ProbitBernoulli=lambda: tfd.ProbitBernoulli(probs=0.3),
    tfd__Skellam=lambda: tfd.Skellam(3.0, 2.0),
    tfd__StoppingRatioLogistic=lambda: tfd.StoppingRatioLogistic(jnp.asarray([-1.0, 1.0]), 0.0),
    tfd__Zipf=lambda: tfd.Zipf(3.0),
    tfd__HiddenMarkovModel=lambda: tfd.HiddenMarkovModel(
        tfd.Categorical(probs=WEIGHTS),
        tfd.Categorical(probs=jnp.full((2, 2), 0.5)),
        tfd.Bernoulli(probs=WEIGHTS),
        3,
    ),
    numpyro__BernoulliLogits=lambda: dist.Bernoulli(logits=0.3),
    numpyro__BernoulliProbs=lambda: dist.Bernoulli(0.3),
    numpyro__BetaBinomial=lambda: dist.BetaBinomial(2.0, 3.0, 5),
    numpyro__BetaNegativeBinomial=lambda: dist.BetaNegativeBinomial(2.0, 3.0, 5.0),
    numpyro__BinomialLogits=lambda: dist.Binomial(5, logits=0.3),
    numpyro__BinomialProbs=lambda: dist.Binomial(5, 0.3),
    numpyro__CategoricalLogits=lambda: dist.Categorical(logits=WEIGHTS),
    numpyro__CategoricalProbs=lambda: dist.Categorical(WEIGHTS),
    numpyro__DirichletMultinomial=lambda: dist.DirichletMultinomial(SIMPLEX, 5),
    numpyro__DiscreteUniform=lambda: dist.DiscreteUniform(0, 5),
    numpyro__GammaPoisson=lambda: dist.GammaPoisson(2.0, 3.0),
    numpyro__GeometricProbs=lambda: dist.Geometric(0.3),
    numpyro__MultinomialProbs=lambda: dist.Multinomial(5, WEIGHTS),
    numpyro__NegativeBinomial2=lambda: dist.NegativeBinomial2(2.0, 3.0),
    numpyro__NegativeBinomialProbs=lambda: dist.NegativeBinomialProbs(5.0, 0.3),
    numpyro__OrderedLogistic=lambda: dist.OrderedLogistic(0.0, jnp.asarray([-1.0, 1.0])),
    numpyro__Poisson=lambda: dist.Poisson(3.0),
    numpyro__MixtureSameFamily=lambda: dist.MixtureSameFamily(dist.Categorical(WEIGHTS), dist.Poisson(SCALES)),
)
_refuse(
    "puts probability on single points",
    distrax__ClippedLogistic=lambda: distrax.ClippedLogistic(0.0, 1.0, -1.0, 1.0),
    distrax__ClippedNormal=lambda: distrax.ClippedNormal(0.0, 1.0, -1.0, 1.0),
    distrax__Deterministic=lambda: distrax.Deterministic(0.5),
    distrax__OneHotCategorical=lambda: distrax.OneHotCategorical(probs=WEIGHTS),
    distrax__Quantized=lambda: distrax.Quantized(distrax.Normal(0.0, 1.0)),
    tfd__OneHotCategorical=lambda: tfd.OneHotCategorical(probs=WEIGHTS),
    tfd__Deterministic=lambda: tfd.Deterministic(0.5),
    tfd__Empirical=lambda: tfd.Empirical(SIMPLEX),
    tfd__FiniteDiscrete=lambda: tfd.FiniteDiscrete(SIMPLEX, probs=SIMPLEX / 9),
    tfd__Inflated=lambda: tfd.Inflated(tfd.Normal(0.0, 1.0), inflated_loc_probs=0.3),
    tfd__QuantizedDistribution=lambda: tfd.QuantizedDistribution(tfd.Normal(0.0, 1.0)),
    tfd__VectorDeterministic=lambda: tfd.VectorDeterministic(SIMPLEX),
    numpyro__Delta=lambda: dist.Delta(0.5),
    numpyro__Independent=lambda: dist.Delta(SIMPLEX).to_event(1),
    numpyro__HurdleGamma=lambda: dist.HurdleGamma(0.3, 2.0, 3.0),
    numpyro__HurdleLogNormal=lambda: dist.HurdleLogNormal(0.3, 0.0, 1.0),
    numpyro__ZeroInflatedPoisson=lambda: dist.ZeroInflatedPoisson(0.3, 3.0),
    numpyro__MixtureGeneral=lambda: dist.MixtureGeneral(
        dist.Categorical(WEIGHTS), [dist.Delta(0.5), dist.Normal(0.0, 1.0)], support=dist.constraints.real
    ),
)
_refuse(
    "censored observations",
    numpyro__LeftCensored=lambda: dist.LeftCensoredDistribution(dist.Normal(0.0, 1.0), jnp.asarray(1)),
    numpyro__RightCensored=lambda: dist.RightCensoredDistribution(dist.Normal(0.0, 1.0), jnp.asarray(0)),
)
_refuse(
    "is masked",
    numpyro__MaskedDistribution=lambda: dist.Normal(0.0, 1.0).mask(False),
    tfd__Masked=lambda: tfd.Masked(tfd.Normal(0.0, 1.0), False),
)
_refuse(
    "support",
    tfd__PowerSpherical=lambda: tfd.PowerSpherical(jnp.asarray([0.6, 0.8]), 2.0),
    tfd__SphericalUniform=lambda: tfd.SphericalUniform(3),
    tfd__VonMisesFisher=lambda: tfd.VonMisesFisher(jnp.asarray([0.6, 0.8]), 2.0),
    numpyro__ProjectedNormal=lambda: dist.ProjectedNormal(jnp.asarray([1.0, 2.0])),
    distrax__uniforms=lambda: distrax.MixtureSameFamily(
        distrax.Categorical(probs=WEIGHTS), distrax.Uniform(MEAN, MEAN + SCALES)
    ),
    tfd__uniforms=lambda: tfd.MixtureSameFamily(tfd.Categorical(probs=WEIGHTS), tfd.Uniform(MEAN, MEAN + SCALES)),
)
_refuse(
    "bijector does not reach",
    distrax__mixed=lambda: distrax.MixtureOfTwo(0.3, distrax.Gamma(2.0, 1.0), distrax.Normal(0.0, 1.0)),
    tfd__mixed=lambda: tfd.Mixture(tfd.Categorical(probs=WEIGHTS), [tfd.Gamma(2.0, 1.0), tfd.Normal(-1.0, 1.0)]),
)
_refuse(
    "cannot be drawn from",
    numpyro__ImproperUniform=lambda: dist.ImproperUniform(dist.constraints.real, (), ()),
)
_refuse("no log density that JAX can trace", tfd__Bates=lambda: tfd.Bates(3, 0.0, 2.0))
_refuse("events without numbers", numpyro__Unit=lambda: dist.Unit(0.5))
