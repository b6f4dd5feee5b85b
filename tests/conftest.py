"""What every test shares: JAX's settings, run-time type checks, seeds, and the data that is not in the repository."""

import gc
import importlib.metadata
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[1]
SEED = 0

# JAX reads its settings when it is imported, so they come first; the processes that the tests start inherit them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# One cache for all clones of a user, so that a fresh clone compiles only what has changed.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parsample-tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
# With JAX's own thresholds only slow compilations are kept, and the tests have thousands of quick ones.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
# Four host devices, for the tests that spread chains over devices; the others run on the first, at the same speed. And
# quick compilation: the tests compile thousands of programs, most of which run for milliseconds.
XLA_FLAGS = [
    "--xla_force_host_platform_device_count=4",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_multi_thread_eigen=false",
]
# What JAX makes while it traces lives as long as the program: looking for cycles in it as often as Python does, unless
# told otherwise, takes a seventh of the time.
gc.set_threshold(50_000, 20, 50)
# The matrices of the tests are small: threads that wait for each other take several times as long as one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Generating fusions through MLIR takes more than half of the time that a program takes to compile. The flag that leaves
# it out has been removed since, and XLA ends a process that names a flag it does not know.
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in XLA_FLAGS if flag.split("=")[0] not in given)]).strip()
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / ".cache" / "hypothesis"))

from jaxtyping import install_import_hook

# Checks the annotations of every function of the package, shapes too, whenever one is called. That takes a third of the
# time, so only the first part of `make test` asks for it. It must be there before the first import.
if os.environ.get("PARSAMPLE_TYPED"):
    install_import_hook("parsample", "beartype.beartype")

# ArviZ keeps the day of its last announcement in a file, which processes that import it at once take from each other:
# the one that starts them is first.
if "PYTEST_XDIST_WORKER" not in os.environ:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz  # noqa: F401

# A shell that runs the tests in the background has their process ignore interrupts, which some of the tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import jax
import numpy as np
import pytest

# Derandomised, so that a run can be repeated; no deadline, because the first example of a shape has to compile.
hypothesis.settings.register_profile(
    "parsample",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("parsample")


def pytest_report_header() -> str:
    return f"seed {SEED}, hypothesis derandomized, jax {jax.__version__} on {jax.default_backend()}"


# Rooms and files that use neither ArviZ nor files; and what of them a new generation of JAX is most likely to change.
NUMERICS = (
    *("engine", "samplers", "targets", "warmup", "test_covering.py", "test_imports.py", "benchmarks/test_ordinary.py"),
    *("run/test_compile_once.py", "run/test_diffuse.py", "run/test_forecast.py"),
)
REPEATED = ("test_every_method.py", "test_derivative.py")
# Tables of which every third row is enough for that.
TABLES, ROW = ("contract/test_parallel.py", "contract/test_samplers.py", "engine/test_every_method.py"), 3
# The longest files of the slow tests, the longest first.
SLOWEST = ("run/test_sample_external.py", "test_examples.py", "test_documents.py", "run/test_random_models.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what is numerics; and let files with slow tests come first, so that none of them is left for one core."""
    slow: set[Path] = set()
    rows: dict[str, dict[str, int]] = {name: {} for name in TABLES}
    for item in items:
        file = item.path.relative_to(ROOT / "tests")
        if not {file.parts[0], file.as_posix()}.isdisjoint(NUMERICS) and file.name not in REPEATED:
            item.add_marker("numerics")
        elif file.as_posix() in TABLES:
            known, row = rows[file.as_posix()], item.name.partition("[")[2]
            if known.setdefault(row, len(known)) % ROW:
                item.add_marker("numerics")
        if item.get_closest_marker("slow"):
            slow.add(item.path)
    place = {ROOT / "tests" / name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: (item.path not in slow, place.get(item.path, len(place))))


class Compiled:
    """How many programs this process holds; modules share those that are of the same function, shapes and options."""

    # A program takes two MB with all that JAX keeps beside it, and some twenty memory mappings, of which Linux grants a
    # process 65,530: one too many ends it.
    most: ClassVar[int] = 600
    count: ClassVar[int] = 0

    @classmethod
    def see(cls, event: str, duration_secs: float, **kwargs: Any) -> None:
        cls.count += event == "/jax/core/compile/backend_compile_duration"

    @classmethod
    def forget_if_many(cls) -> None:
        if cls.count > cls.most:
            jax.clear_caches()
            cls.count = 0


jax.monitoring.register_event_duration_secs_listener(Compiled.see)


@pytest.fixture(scope="module", autouse=True)
def bound_compiled_programs() -> Iterator[None]:
    yield
    Compiled.forget_if_many()


@pytest.fixture
def seed() -> int:
    return SEED


@pytest.fixture
def rng_key() -> jax.Array:
    return jax.random.key(SEED)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that are not in the repository: PARSAMPLE_SHARED names it, or it lies beside a parent."""
    named = os.environ.get("PARSAMPLE_SHARED")
    candidates = [Path(named)] if named else [parent / "shared" for parent in ROOT.parents]
    for candidate in candidates:
        if (candidate / "data").is_dir():
            return candidate / "data"
    pytest.skip(f"no 'data' in {' or '.join(map(str, candidates))}: PARSAMPLE_SHARED names the folder that holds it")
