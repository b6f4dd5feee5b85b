"""Imports run one way, and `import parsample` costs what importing JAX costs."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "parsample"

# The front (`parsample/__init__.py`), which imports every public name on first use.
FRONT = ""
# The rooms of the house from the ground up, and the rooms below that each may use; the command line is a user of the
# front. What the front itself imports is its table, which tests/test_public_names.py checks.
ROOMS = {
    "_former": set[str](),
    "_version": set[str](),
    "_xla": set[str](),
    "engine": {"_former"},
    "workers": {"engine"},
    "samplers": {"_former", "engine"},
    "targets": {"engine", "workers"},
    "store": set[str](),
    "results": {"_version", "engine", "store", "targets"},
    "warmup": {"engine", "results", "samplers", "targets", "workers"},
    "run": {"_former", "_version", "engine", "results", "samplers", "store", "targets", "warmup", "workers"},
    "report": {"results"},
    FRONT: set[str](),
    "cli": {FRONT, "engine", "report", "results", "run", "samplers", "store", "targets", "workers"},
    "__main__": {"cli"},
}

HEAVY = [
    "arviz",
    "blackjax",
    "diffrax",
    "distrax",
    "h5netcdf",
    "h5py",
    "matplotlib",
    "numpyro",
    "pandas",
    "rich",
    "sklearn",
    "tensorflow_probability",
    "torch",
    "typer",
    "xarray",
]


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, name: str, is_package: bool, modules: set[str]) -> set[str]:
    """The modules of the package that this source imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                here = parts[: len(parts) - node.level + is_package]
                base = ".".join([*here, base] if base else here)
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= {member if member in modules else base for member in members}
    root = name.split(".")[0]
    return {target for target in found if target.split(".")[0] == root}


def import_graph(package: Path) -> dict[str, set[str]]:
    paths = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    return {
        name: imported(path.read_text(encoding="utf-8"), name, path.name == "__init__.py", set(paths))
        for name, path in paths.items()
    }


def room_of(name: str) -> str:
    return f"{name}.".split(".")[1]


def upward_imports(graph: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} imports {target}"
        for name, targets in sorted(graph.items())
        for target in sorted(targets)
        if room_of(name) != FRONT and room_of(target) not in ROOMS.get(room_of(name), set()) | {room_of(name)}
    ]


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, empty where there is none. The front of the package is left out."""
    edges = {name: targets - {name, "parsample"} for name, targets in graph.items() if name != "parsample"}
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_a_room_uses_only_rooms_below_it() -> None:
    assert upward_imports(import_graph(PACKAGE)) == []
    floors = list(ROOMS)
    assert all(floors.index(below) < floors.index(room) for room in floors for below in ROOMS[room])


def test_every_room_is_in_the_plan_and_uses_what_the_plan_says() -> None:
    graph = import_graph(PACKAGE)
    assert {room_of(name) for name in graph} == set(ROOMS)
    used = {(room_of(name), room_of(target)) for name, targets in graph.items() for target in targets}
    unused = [f"{room} uses {below}" for room in ROOMS for below in ROOMS[room] if (room, below) not in used]
    assert unused == []


def test_imports_make_no_circle() -> None:
    assert cycle(import_graph(PACKAGE)) == []


@pytest.mark.parametrize(
    ("file", "source", "target"),
    [
        ("engine/bad.py", "def f():\n    from parsample.samplers import base", "parsample.samplers.base"),
        ("engine/bad.py", "from ..samplers.base import Sampler", "parsample.samplers.base"),
        ("engine/bad.py", "import parsample", "parsample"),
        ("engine/bad.py", "from .. import trace", "parsample"),
        ("samplers/bad.py", "from parsample.targets import TARGETS", "parsample.targets"),
        ("targets/bad.py", "import parsample.samplers.base as b", "parsample.samplers.base"),
        ("report/bad.py", "from parsample.run.sample import sample", "parsample.run.sample"),
        ("store/bad.py", "from parsample.results import trace", "parsample.results.trace"),
    ],
)
def test_the_check_sees_an_upward_import(tmp_path: Path, file: str, source: str, target: str) -> None:
    package = tmp_path / "parsample"
    rooms = ("engine", "samplers", "targets", "report", "store", "results", "run")
    files = ["__init__.py", *(f"{room}/__init__.py" for room in rooms)]
    files += ["samplers/base.py", "results/trace.py", "run/sample.py"]
    for name in files:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    (package / file).write_text(source)
    assert upward_imports(import_graph(package)) == [f"{module_name(package / file, package)} imports {target}"]


def test_the_check_sees_a_circle(tmp_path: Path) -> None:
    package = tmp_path / "parsample"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("from parsample import two")
    (package / "two.py").write_text("def f():\n    from . import one")
    assert set(cycle(import_graph(package))) == {"parsample.one", "parsample.two"}


LATER = """
import sys, threading
import parsample
from parsample.results.form import find_form
from parsample.run.ahead import import_ahead
find_form(parsample.TARGETS["eight_schools"]())
print("arviz" in sys.modules, "xarray" in sys.modules)
import_ahead()
for thread in threading.enumerate():
    if thread.name == "parsample imports":
        thread.join()
print("arviz" in sys.modules, "scipy.stats" in sys.modules)
import arviz
before = threading.active_count()
import_ahead()
print(threading.active_count() - before)
"""


def test_what_arviz_imports_is_there_when_it_is_needed_and_nobody_has_waited_for_it() -> None:
    """The shape of a trace is checked without ArviZ, and it takes seconds to import, as XLA does to compile."""
    done = subprocess.run([sys.executable, "-c", LATER], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False True", "False True", "0"], done.stderr


# What runs code, or makes objects, that a name or a file says: where it may stand. No trace, store or setting names any
# of it, but for the model of `model_file`, whose path the user has to give again or to trust.
RUNS_CODE = {
    "cloudpickle",
    "import_module",
    "__import__",
    "exec",
    "eval",
    "spec_from_file_location",
    "allow_pickle",
    "pickle",
}
MAY = {
    "parsample": {"import_module"},  # of the table of public names
    "parsample.run.progress": {"import_module"},  # of IPython's display, where it is there
    "parsample.targets.model_file": {"spec_from_file_location"},
    # Of the modules beside a file that the user names, which go to workers elsewhere as they stand.
    "parsample.targets.external_file": {"cloudpickle"},
    # The function of a user's program, which that program sends to its own workers.
    "parsample.workers.child": {"cloudpickle"},
    "parsample.workers.lanes": {"cloudpickle"},
}


def running(source: str) -> set[str]:
    """The names in a source that run code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.alias):
            found.add(node.id if isinstance(node, ast.Name) else node.name)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword | ast.ImportFrom):
            found.add(str(node.arg if isinstance(node, ast.keyword) else node.module))
    return found & RUNS_CODE


def test_nothing_runs_what_a_file_names() -> None:
    paths = {module_name(path, PACKAGE): path for path in PACKAGE.rglob("*.py")}
    found = {name: running(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    assert {name: names for name, names in found.items() if names} == MAY


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import load", "pickle.loads(x)", "np.load(f, allow_pickle=True)", "eval(x)"],
)
def test_the_check_sees_what_runs_code(source: str) -> None:
    assert running(source)


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = f"import sys, parsample; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
