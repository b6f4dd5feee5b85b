"""The targets of the package, with the data of those whose data do not ship."""

from collections.abc import Iterator
from pathlib import Path

import parsample as ps

# Where the data lie that do not ship, in the folder that is given: the UCI file, and posteriordb's.
DATA = {
    "german_credit": "german.data-numeric",
    "kidscore_interaction": "posteriors/kidiq-kidscore_interaction.json",
    "blr": "posteriors/sblrc-blr.json",
    "autoregressive": "posteriors/arK-arK.json",
    "garch": "posteriors/garch-garch11.json",
    "gp_regression": "posteriors/gp_pois_regr-gp_regr.json",
    "lotka_volterra": "posteriors/hudson_lynx_hare-lotka_volterra.json",
}


def targets(data: Path | None = None) -> Iterator[tuple[str, ps.targets.Target]]:
    """Yield every target by its name; without the folder of data those that need none of it."""
    for name, target_class in ps.TARGETS.items():
        if name not in DATA:
            yield name, target_class()
        elif data is not None:
            yield name, target_class(data=data / DATA[name])
