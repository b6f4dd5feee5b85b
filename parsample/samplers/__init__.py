"""The samplers, one family a file. A new one is a file and a row in `SAMPLERS`."""

from parsample.engine.names import unknown
from parsample.samplers.base import Sampler
from parsample.samplers.gibbs import Gibbs
from parsample.samplers.mala import MALA
from parsample.samplers.sgld import SGHMC, SGLD
from parsample.samplers.tempering import Tempering
from parsample.samplers.ula import ULA

SAMPLERS: dict[str, type[Sampler]] = {
    "ula": ULA,
    "mala": MALA,
    "gibbs": Gibbs,
    "sgld": SGLD,
    "tempering": Tempering,
}

__all__ = ["MALA", "SAMPLERS", "SGHMC", "SGLD", "ULA", "Gibbs", "Sampler", "Tempering", "find"]


def find(sampler: str | type[Sampler]) -> type[Sampler]:
    """Return a sampler's class, given as such or by its name in `SAMPLERS`.

    Raises:
        ValueError: no sampler has that name; the nearest one is suggested.
    """
    if isinstance(sampler, type) and issubclass(sampler, Sampler):
        return sampler
    if isinstance(sampler, str) and sampler in SAMPLERS:
        return SAMPLERS[sampler]
    raise unknown("sampler", sampler, SAMPLERS, "a Sampler class")
