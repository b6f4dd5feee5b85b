"""The tests of the engine compile many small programs, and each runs for milliseconds."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_to_compile() -> Iterator[None]:
    """Leave out most of the compiler's optimisations: it takes half the time, and rounding hardly changes."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
