"""The wheel and the source archive: what is in them, that they install, and that the lock agrees with the metadata."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

EXTRAS = ["cuda12", "cuda13", "tpu"]


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        # The source tree must not be found by way of the environment: what is installed is what is tested.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def archives(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both archives; `build` makes the wheel from the source archive, which therefore has all that is needed."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, repository, cwd=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture(scope="module")
def wheel_files(archives: dict[str, Path]) -> list[str]:
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        return wheel.namelist()


@pytest.fixture(scope="module")
def sdist_files(archives: dict[str, Path]) -> list[str]:
    with tarfile.open(archives["sdist"]) as sdist:
        return [name.split("/", 1)[1] for name in sdist.getnames()]


def package_files(repository: Path) -> set[str]:
    package = repository / "parsample"
    found = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(repository).as_posix() for path in found}


def test_the_links_lead_into_the_package(repository: Path) -> None:
    for name in ("samplers", "targets"):
        assert (repository / name).readlink() == Path("parsample", name)


def test_the_wheel_holds_the_package_and_nothing_else(repository: Path, wheel_files: list[str]) -> None:
    code = {name for name in wheel_files if ".dist-info/" not in name}
    assert code == package_files(repository)
    assert {"parsample/py.typed", "parsample/samplers/__init__.py", "parsample/targets/__init__.py"} <= code


def test_the_source_archive_holds_every_file_once(repository: Path, sdist_files: list[str]) -> None:
    assert len(sdist_files) == len(set(sdist_files))
    assert {name for name in sdist_files if name.startswith("parsample/")} == package_files(repository)
    assert not [name for name in sdist_files if name.split("/")[0] in {"samplers", "targets"}]
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"} <= set(sdist_files)


def test_the_metadata(archives: dict[str, Path], wheel_files: list[str], project: dict[str, Any]) -> None:
    (path,) = (name for name in wheel_files if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        metadata = message_from_string(wheel.read(path).decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] == project["version"]
    brought = {str(requirement) for requirement in metadata.get_all("Requires-Dist", [])}
    for extra in EXTRAS:
        assert f"jax[{extra}]; extra == '{extra}'" in brought


def test_the_version_is_the_same_in_the_package_and_its_metadata(project: dict[str, Any]) -> None:
    import parsample

    assert parsample.__version__ == project["version"]


def test_every_dependency_has_a_lower_bound(project: dict[str, Any]) -> None:
    requirements = map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"])
    assert [str(r) for r in requirements if not any(s.operator == ">=" for s in r.specifier)] == []


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_lock_pins_every_dependency_within_its_bounds(
    repository: Path, project: dict[str, Any], version: str
) -> None:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    environment: dict[str, Any] = {**default_environment()}
    environment |= {"python_version": version, "python_full_version": f"{version}.0"}
    pins = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    pinned = {pin.name: pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)}
    for requirement in map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"]):
        (pin,) = pinned[requirement.name].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{requirement}, pinned at {pin.version}"


def test_the_lock_names_no_index(repository: Path) -> None:
    lock = (repository / "constraints.txt").read_text(encoding="utf-8")
    assert re.findall(r"://|^\s*-", lock, flags=re.MULTILINE) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs(archives: dict[str, Path], project: dict[str, Any], tmp_path: Path, kind: str) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True, with_pip=False)
    python = environment / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(run(python, "-c", purelib, cwd=tmp_path).strip())
    # The dependencies are those of the running environment, so that no package index is needed.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, archives[kind], cwd=tmp_path)

    assert project["version"] in run(environment / "bin" / "parsample", "--version", cwd=tmp_path)
    shown = run(python, "-c", "import parsample; print(parsample.__version__, parsample.__file__)", cwd=tmp_path)
    assert shown.split() == [project["version"], str(site_packages / "parsample" / "__init__.py")]
