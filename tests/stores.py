"""What the tests of stores share: a small run in short segments, ways to stop it, and the comparison of two traces."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run import disk as store
from parsample.run import plan as sampling
from parsample.run.progress import Event
from parsample.store import layout as store_layout

# In parallel, whose counts are more to keep than those of the loop.
SETTINGS: dict[str, Any] = {
    "num_warmup": 80, "num_samples": 900, "num_chains": 2, "seed": 5, "method": "quasi_newton", "progress": False
}  # fmt: skip
TARGET = "multivariate_normal"


def shorten_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run have eight segments, each committed as it ends, three to a chunk."""
    monkeypatch.setattr(sampling, "PIECE", 128)
    monkeypatch.setattr(store, "COMMIT_EVERY", 0.0)
    monkeypatch.setattr(store_layout, "CHUNK_BYTES", 3 * 128 * 2 * 2 * 4)


def check_same(found: Any, expected: Any) -> None:
    found, expected = as_datatree(found), as_datatree(expected)
    assert set(found.children) == set(expected.children)
    for group, node in expected.children.items():
        assert set(found[group].variables) == set(node.variables)
        for name, variable in node.variables.items():
            assert found[group][name].dims == variable.dims
            assert found[group][name].dtype == variable.dtype
            np.testing.assert_array_equal(found[group][name].values, variable.values)


def stop_at(stage: str, steps: int, error: type[BaseException] = KeyboardInterrupt) -> Any:
    """A function for progress that ends the run."""

    def send(event: Event) -> None:
        if event.stage == stage and event.done >= steps:
            raise error

    return send


def interrupted(path: Path, stage: str = "sampling", steps: int = 300, **keywords: Any) -> KeyboardInterrupt:
    with pytest.raises(KeyboardInterrupt) as caught:
        ps.sample(TARGET, store=path, **{**SETTINGS, **keywords, "progress": stop_at(stage, steps)})
    return caught.value
