"""The targets, one a file. A new one is a file and a row in `TARGETS`.

What a target needs beyond JAX (distrax, scikit-learn) it imports where it is used.
"""

from parsample.engine.names import find_class
from parsample.targets.autoregressive import Autoregressive
from parsample.targets.banana import Banana
from parsample.targets.base import Target
from parsample.targets.blr import BLR
from parsample.targets.breast_cancer import BreastCancer
from parsample.targets.eight_schools import EightSchools
from parsample.targets.eight_schools_centered import EightSchoolsCentered
from parsample.targets.eight_schools_conjugate import EightSchoolsConjugate
from parsample.targets.external import External
from parsample.targets.funnel import Funnel
from parsample.targets.garch import GARCH
from parsample.targets.gaussian_mixture import GaussianMixture
from parsample.targets.german_credit import GermanCredit
from parsample.targets.gp_regression import GPRegression
from parsample.targets.kidscore_interaction import KidscoreInteraction
from parsample.targets.log_gamma import LogGamma
from parsample.targets.logistic_regression import LogisticRegression
from parsample.targets.lotka_volterra import LotkaVolterra
from parsample.targets.multivariate_normal import MultivariateNormal
from parsample.targets.numpyro_model import NumPyroModel
from parsample.targets.probit_regression import ProbitRegression
from parsample.targets.two_wells import TwoWells
from parsample.targets.umbridge import UMBridge

TARGETS: dict[str, type[Target]] = {
    "multivariate_normal": MultivariateNormal,
    "log_gamma": LogGamma,
    "two_wells": TwoWells,
    "gaussian_mixture": GaussianMixture,
    "banana": Banana,
    "funnel": Funnel,
    "eight_schools": EightSchools,
    "eight_schools_centered": EightSchoolsCentered,
    "eight_schools_conjugate": EightSchoolsConjugate,
    "logistic_regression": LogisticRegression,
    "probit_regression": ProbitRegression,
    "breast_cancer": BreastCancer,
    "german_credit": GermanCredit,
    "kidscore_interaction": KidscoreInteraction,
    "blr": BLR,
    "autoregressive": Autoregressive,
    "garch": GARCH,
    "gp_regression": GPRegression,
    "lotka_volterra": LotkaVolterra,
}

__all__ = [
    "BLR",
    "GARCH",
    "TARGETS",
    "Autoregressive",
    "Banana",
    "BreastCancer",
    "EightSchools",
    "EightSchoolsCentered",
    "EightSchoolsConjugate",
    "External",
    "Funnel",
    "GPRegression",
    "GaussianMixture",
    "GermanCredit",
    "KidscoreInteraction",
    "LogGamma",
    "LogisticRegression",
    "LotkaVolterra",
    "MultivariateNormal",
    "NumPyroModel",
    "ProbitRegression",
    "Target",
    "TwoWells",
    "UMBridge",
    "find",
]


def find(target: str | type[Target]) -> type[Target]:
    """Return a target's class, given as such or by its name in `TARGETS`.

    Raises:
        ValueError: no target has that name; the nearest one is suggested.
    """
    return find_class("target", target, TARGETS, Target)
