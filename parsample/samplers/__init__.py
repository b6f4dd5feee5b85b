"""The samplers, one family a file. A new one is a file and a row in `SAMPLERS`."""

from parsample.engine.names import find_class
from parsample.samplers import diffusion
from parsample.samplers.adjusted_mclmc import AdjustedMCLMC
from parsample.samplers.barker import Barker
from parsample.samplers.base import Chain, Sampler
from parsample.samplers.configured import Configured
from parsample.samplers.elliptical import EllipticalSlice
from parsample.samplers.from_blackjax import FromBlackJAX, from_blackjax
from parsample.samplers.from_diffrax import FromDiffrax, from_diffrax
from parsample.samplers.ghmc import GHMC
from parsample.samplers.gibbs import Conditional, Gibbs
from parsample.samplers.hmc import HMC
from parsample.samplers.mala import MALA
from parsample.samplers.mclmc import MCLMC
from parsample.samplers.nuts import NUTS
from parsample.samplers.pcn import PCN
from parsample.samplers.rwm import RWM
from parsample.samplers.sgld import SGHMC, SGLD
from parsample.samplers.tempering import Tempering
from parsample.samplers.ula import ULA
from parsample.samplers.underdamped_langevin import UnderdampedLangevin

SAMPLERS: dict[str, type[Sampler]] = {
    "ula": ULA,
    "mala": MALA,
    "hmc": HMC,
    "nuts": NUTS,
    "ghmc": GHMC,
    "underdamped_langevin": UnderdampedLangevin,
    "mclmc": MCLMC,
    "barker": Barker,
    "rwm": RWM,
    "pcn": PCN,
    "gibbs": Gibbs,
    "sgld": SGLD,
    "tempering": Tempering,
}

__all__ = [
    "GHMC",
    "HMC",
    "MALA",
    "MCLMC",
    "NUTS",
    "PCN",
    "RWM",
    "SAMPLERS",
    "SGHMC",
    "SGLD",
    "ULA",
    "AdjustedMCLMC",
    "Barker",
    "Chain",
    "Conditional",
    "Configured",
    "EllipticalSlice",
    "FromBlackJAX",
    "FromDiffrax",
    "Gibbs",
    "Sampler",
    "Tempering",
    "UnderdampedLangevin",
    "diffusion",
    "find",
    "from_blackjax",
    "from_diffrax",
]


def find(sampler: str | type[Sampler]) -> type[Sampler]:
    """Return a sampler's class, given as such or by its name in `SAMPLERS`.

    Raises:
        ValueError: no sampler has that name; the nearest one is suggested.
    """
    return find_class("sampler", sampler, SAMPLERS, Sampler)
