"""Every example runs, small, and ends in its figure."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = {
    "settling": ["--steps", "64", "--warmup", "160"],
    "chaotic_observers": ["--steps", "300", "--max-iterations", "10"],
    "two_wells": ["--steps", "100", "--seeds", "2"],
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figure = tmp_path / "figure.png"
    module.main([*SMALL[path.stem], "--output", str(figure)])
    assert figure.stat().st_size > 10_000
    assert "largest residual" in capsys.readouterr().out
