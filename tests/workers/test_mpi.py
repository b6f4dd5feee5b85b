"""Workers under MPI, by the standard executor interface of mpi4py: a program that `mpiexec` starts on three ranks."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parsample as ps
from parsample.results.trace import as_datatree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed: no MPI was tried"),
]
# Beside the interpreter where it came from a package.
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

PROGRAM = """
import json, os, sys
import numpy as np
import parsample as ps
from mpi4py.futures import MPIPoolExecutor
from parsample.results.trace import as_datatree

def simulate(position):
    with open(os.path.join(os.environ["RUNS"], str(os.getpid())), "a") as file:
        file.write("run ")
    return -0.5 * float(np.sum(position["x"] ** 2))

def fussy(position):
    if np.any(position["x"] != 0):
        raise ValueError("too far")
    return 0.0

if __name__ == "__main__":
    found = {"pid": os.getpid()}
    with MPIPoolExecutor() as executor:
        target = ps.targets.External(simulate, {"x": np.zeros(2)}, executor=executor)
        trace = ps.sample(target, **json.loads(sys.argv[1]))
        found["draws"] = as_datatree(trace)["posterior"]["x"].values.tolist()
        found["workers"] = ps.read_verdict(trace).model_lanes
        try:
            ps.sample(ps.targets.External(fussy, {"x": np.zeros(2)}, executor=executor), **json.loads(sys.argv[1]))
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))
"""
SETTINGS: dict[str, Any] = {"num_warmup": 40, "num_samples": 60, "num_chains": 2, "seed": 3, "progress": False}


def test_ranks_are_workers_and_the_chain_is_the_same(tmp_path: Path) -> None:
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec: no MPI was tried")
    program, runs = tmp_path / "program.py", tmp_path / "runs"
    program.write_text(PROGRAM)
    runs.mkdir()
    command = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(program), json.dumps(SETTINGS)]
    environment = os.environ | {"RUNS": str(runs), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["workers"] == 2
    by = {int(path.name) for path in runs.iterdir()}
    assert len(by) == 2
    assert found["pid"] not in by
    assert "too far" in found["error"]

    def simulate(position: dict[str, np.ndarray]) -> float:
        return -0.5 * float(np.sum(position["x"] ** 2))

    target = ps.targets.External(simulate, {"x": np.zeros(2)}, executor="threads", workers=2)
    expected: Any = as_datatree(ps.sample(target, **SETTINGS))["posterior"]["x"].values
    np.testing.assert_array_equal(np.array(found["draws"], expected.dtype), expected)
