"""The command line as the tests call it: in this process, and in one of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from parsample.cli import main as cli

ROOT = Path(__file__).resolve().parents[1]

# A file with a model.
MODEL = """
import numpyro
import numpyro.distributions as dist


def line(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 10))
    numpyro.sample("y", dist.Normal(slope * x, 1), obs=y)
"""


def invoke(*arguments: str, columns: int = 80) -> Any:
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"})


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as the script of the package starts it."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(cwd / "cache"), "COLUMNS": "80"}
    start = "import sys; from parsample.cli.main import main; sys.argv[0] = 'parsample'; main()"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def words(text: str) -> str:
    """The text without frames and line breaks."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
