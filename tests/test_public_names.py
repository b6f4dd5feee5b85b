"""The public names: every one resolves, none is shadowed by a module, and a wrong one says which there are."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import parsample as ps

PACKAGE = Path(__file__).resolve().parents[1] / "parsample"


@pytest.mark.parametrize("name", ps.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(ps, name)
    module, attribute = ps._PUBLIC.get(name, ("parsample", "__version__"))
    if attribute is None:
        assert isinstance(value, types.ModuleType)
        assert value.__name__ == module
    elif name != "__version__" and hasattr(value, "__name__"):
        assert value.__name__ == attribute


def test_the_list_of_names() -> None:
    assert dir(ps) == sorted(ps.__all__)
    assert len(set(ps.__all__)) == len(ps.__all__)
    assert {"sample", "evaluate", "TARGETS", "SAMPLERS", "METHODS", "read_verdict"} <= set(ps.__all__)
    namespace: dict[str, object] = {}
    exec("from parsample import *", namespace)
    assert set(ps.__all__) <= set(namespace)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(
        AttributeError, match=r"module 'parsample' has no attribute 'sampel'; its names are .* sample, "
    ):
        ps.sampel  # noqa: B018
    assert not hasattr(ps, "_nothing")


def test_importing_a_module_first_takes_no_public_name_away() -> None:
    """A module `parsample.x` becomes the attribute `x` of the package when it is imported, whatever `x` was to be."""
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
    ]
    script = f"""
import importlib, json, sys
for name in {modules!r}:
    importlib.import_module(name)
import parsample
print(json.dumps({{name: type(getattr(parsample, name)).__name__ for name in parsample.__all__}}))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    kinds = json.loads(result.stdout.splitlines()[-1])
    modules_found = {name for name, kind in kinds.items() if kind == "module"}
    assert modules_found == {name for name, (_, attribute) in ps._PUBLIC.items() if attribute is None}
    assert kinds["sample"] == "function"
