"""Every example runs, small, and ends in its figure."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = {
    "anisotropic_mixture": ["--dims", "3", "--steps", "20", "--step-sizes", "0.001"],
    "banana_movie": ["--draws", "40", "--frames", "3"],
    "chaotic_observers": ["--steps", "300", "--max-iterations", "10"],
    "distance_from_jacobian": ["--dim", "3", "--steps", "20", "--sizes", "0.1", "--couplings", "0.1"],
    "gru": ["--dims", "3", "--steps", "20", "40"],
    "predator_prey": ["--warmup", "80", "--samples", "20"],
    "rates": ["--dim", "3", "--steps", "12", "--strengths", "0.9", "--cap", "12"],
    "residual_network": ["--blocks", "24", "--dim", "3", "--sizes", "0.1"],
    "settling": ["--steps", "64", "--warmup", "160"],
    "train_digits": ["--steps", "4", "--rows", "3"],
    "two_wells": ["--steps", "100", "--seeds", "2"],
    "word_problem": ["--steps", "20", "60", "--slow-steps", "20"],
}


@pytest.mark.slow
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in sorted(EXAMPLES.glob("*.py"))])
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
