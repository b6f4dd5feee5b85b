import re
import subprocess
import sys
from pathlib import Path

import pytest

from parsample import targets
from parsample.targets import TARGETS, Banana, Target, find


def test_every_concrete_target_of_the_folder_has_a_row(repository):
    classes = set()
    for path in (repository / "parsample" / "targets").glob("*.py"):
        classes |= set(
            re.findall(r"^class (?!Abstract)(\w+)\((?:Target|Abstract\w+)\)", path.read_text(), re.MULTILINE)
        )
    # A function, a model and a distribution of another library have no defaults.
    assert classes - {"LogDensity", "NumPyroModel", "Distribution", "External", "UMBridge"} == {
        row.__name__ for row in TARGETS.values()
    }


def test_a_row_is_a_file_of_its_own(repository):
    for name, row in TARGETS.items():
        assert row.__module__ == f"parsample.targets.{name}"


def test_classes_are_exported():
    assert {row.__name__ for row in TARGETS.values()} <= set(targets.__all__)


def test_find_takes_a_name_or_a_class():
    assert find("banana") is Banana
    assert find(Banana) is Banana


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "eight_schols",
            r"target is 'eight_schols', expected one of multivariate_normal, .*Did you mean 'eight_schools'",
        ),
        ("Banana", r"Did you mean 'banana'\?"),
        ("qqqq", r"lotka_volterra, or a Target class\.$"),
    ],
)
def test_find_says_what_was_probably_meant(given, message):
    with pytest.raises(ValueError, match=message):
        find(given)


def test_targets_cannot_be_made_without_the_abstract_parts():
    class Unfinished(Target):
        name = "unfinished"

    with pytest.raises(TypeError, match="abstract"):
        Unfinished()  # type: ignore[abstract]


def test_importing_and_making_targets_loads_no_heavy_library(tmp_path):
    code = (
        "import sys; from pathlib import Path; from parsample.targets import TARGETS\n"
        "from tests.targets.builders import build\n"
        f"[build(name, Path({str(tmp_path)!r})) for name in TARGETS if name != 'breast_cancer']\n"
        "heavy = 'sklearn', 'diffrax', 'distrax', 'numpyro', 'scipy.stats', 'jax.scipy.stats'\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
