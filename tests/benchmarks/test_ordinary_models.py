"""What the table of ordinary models calls good, wrong and fewer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ordinary_models
from benchmarks.device import table_lines
from benchmarks.kept import keep, read
from benchmarks.ordinary_models import KEY, dimensions, judged, table


def draws(seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(shift, 1.0, size=(4, 1000, 2))}


def row(values: dict[str, np.ndarray]) -> dict[str, Any]:
    return judged(values, {"gradients": np.full((4, 1000), 8), "diverging": np.zeros((4, 1000), bool)})


def spoiled(kind: str) -> dict[str, np.ndarray]:
    values = draws(0)
    match kind:
        case "a NaN":
            values["x"][0, 0, 0] = np.nan
        case "an infinity":
            values["x"][3, -1, 1] = np.inf
        case "a chain elsewhere":
            values["x"][1] += 1.0
        case "few effective draws":
            values["x"] = np.cumsum(values["x"], axis=1)
        case "nothing moves":
            values["x"][:] = 1.0
    return values


def test_independent_draws_are_good() -> None:
    found = row(draws(0))
    assert found["good"]
    assert found["gradients"] == 32_000
    for mean, sd, mean_error, sd_error in found["moments"].values():
        assert abs(mean) < 4 * mean_error
        assert abs(sd - 1) < 4 * sd_error
        # In closed form, for independent normal draws.
        assert mean_error == pytest.approx(4000**-0.5, rel=0.15)
        assert sd_error == pytest.approx(8000**-0.5, rel=0.15)


@pytest.mark.parametrize("kind", ["a NaN", "an infinity", "a chain elsewhere", "few effective draws", "nothing moves"])
def test_spoiled_draws_are_not(kind: str) -> None:
    assert not row(spoiled(kind))["good"]


def test_the_table_says_where_ours_loses_and_where_it_is_wrong(tmp_path: Path) -> None:
    good, moved, bad = row(draws(0)), row(draws(1, shift=0.5)), row(spoiled("a chain elsewhere"))
    cases = {"ar2": (good, good), "cox": (moved, good), "sir": (bad, good), "garch": (good, bad)}
    for name, pair in cases.items():
        for sampler, found in zip(("ours", "nuts"), pair, strict=True):
            for seed in range(2):
                keep(tmp_path / f"{sampler}.jsonl", {"model": name, "seed": seed, **found})
    keep(tmp_path / "ours.jsonl", {"model": "arma11", "seed": 0, "error": "ValueError: no"})
    # Where there is a long run of NUTS, it says what is wrong.
    cases |= {"probit": (good, moved), "student_t": (moved, moved)}
    for name in ("probit", "student_t"):
        for sampler, found in zip(("ours", "nuts"), cases[name], strict=True):
            keep(tmp_path / f"{sampler}.jsonl", {"model": name, "seed": 0, **found})
        keep(tmp_path / "long.jsonl", {"model": name, "seed": 0, **good})
    remarks = {found[0]: found[-1] for found in table(tmp_path)}
    assert remarks["probit"] == ""
    assert remarks["student_t"].startswith("WRONG: mean of x[")
    assert {found[0]: found[-2] for found in table(tmp_path)}["probit"] == "0.0 (long)"
    assert remarks["ar2"] == ""
    assert remarks["cox"].startswith("WRONG: mean of x[")
    assert remarks["sir"] == "fewer than half of NUTS's"
    assert remarks["garch"] == "more"
    assert {found[0]: found[3] for found in table(tmp_path)}["arma11"] == "0 of 1 (1 failed)"
    assert all(len(found) == len(ordinary_models.HEADER) for found in table(tmp_path))


def test_nuts_columns_may_be_those_of_an_earlier_table(tmp_path: Path) -> None:
    good, other = row(draws(0)), row(draws(1))
    folders = tmp_path / "before", tmp_path / "after"
    for folder in folders:
        folder.mkdir()
    for name in ("ar2", "cox", "garch"):
        for sampler, found in (("ours", good), ("nuts", other)):
            keep(folders[0] / f"{sampler}.jsonl", {"model": name, "seed": 0, **found})
    keep(folders[1] / "ours.jsonl", {"model": "ar2", "seed": 0, **good})
    keep(folders[1] / "ours.jsonl", {"model": "cox", "seed": 0, **row(spoiled("a chain elsewhere"))})
    keep(folders[1] / "ours.jsonl", {"model": "garch", "seed": 0, **good})
    keep(folders[1] / "nuts.jsonl", {"model": "garch", "seed": 0, **row(spoiled("a chain elsewhere"))})
    before = {found[0]: found for found in table(folders[0])}
    path = tmp_path / "table.md"
    path.write_text("\n".join(table_lines(ordinary_models.HEADER, list(before.values()))))
    after = {found[0]: found for found in table(folders[1], path)}
    same, changed, again = (after[name] for name in ("ar2", "cox", "garch"))
    assert [str(cell) for cell in same] == [str(cell) for cell in before["ar2"]]
    # Ours is new: NUTS's is what it was, and how far the two are apart is not known.
    assert changed[4::2][:5] == before["cox"][4::2][:5]
    assert changed[3] == "0 of 1"
    assert changed[-2:] == ["-", "fewer than half of NUTS's"]
    # Both are new.
    assert again[3:5] == ["1 of 1", "0 of 1"]
    assert again[-1] == "more"


def test_what_is_kept_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def fake(name: str, seeds: Any) -> Any:
        for seed in seeds:
            if seed == 2:
                raise RuntimeError("it broke")
            made.append(seed)
            yield {"seed": seed}

    monkeypatch.setitem(ordinary_models.RUN, "ours", fake)
    for seeds in (1, 3, 4):
        ordinary_models.run(tmp_path, ["ours"], ["ar2"], seeds)
    assert made == [0, 1, 3]
    found = read(tmp_path / "ours.jsonl", KEY)
    assert found["ar2", 2]["error"] == "RuntimeError: it broke"
    assert list(found) == [("ar2", seed) for seed in range(4)]


def test_dimensions_are_those_of_the_unconstrained_space() -> None:
    # A Dirichlet of four has three, a correlation of two one.
    assert dimensions("poisson_groups") == 15 + 20 + 1
    assert dimensions("dirichlet_multinomial") == 3 + 1
    assert dimensions("lkj_slopes") == 2 + 2 + 1 + 40 + 1
