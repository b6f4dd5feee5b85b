"""What a store is resumed with: its settings, what no file holds, and nothing that it could make somebody run."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import init_to_median

import parsample as ps
from parsample.results.trace import as_datatree
from parsample.run import freeze
from parsample.store.layout import RUN
from tests.command_line import invoke
from tests.stores import SETTINGS, TARGET, check_same, interrupted, shorten_segments, stop_at


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_segments(monkeypatch)


class OwnMethod(ps.methods.Sequential):
    """A method that no table has."""


def test_what_no_file_holds_is_passed_again(tmp_path: Path) -> None:
    path, method = tmp_path / "run.zarr", OwnMethod()
    settings: dict[str, Any] = {"warmup_method": method, "num_samples": 128, "method": "sequential"}
    interrupted(path, "warm-up", 10, **settings)
    words = "a OwnMethod with more than plain values"
    with pytest.raises(ValueError, match=f"warmup_method is not given, but .* was begun with {words}, which no file"):
        ps.resume(path)
    with pytest.raises(ValueError, match=rf"warmup_method is 'newton', but .* begun with {words}; pass the same one\."):
        ps.resume(path, warmup_method="newton")
    with pytest.raises(ValueError, match=r"method is 'newton', but .* with 'sequential'; pass .*, or leave it out\."):
        ps.resume(path, warmup_method=method, method="newton")
    check_same(ps.resume(path, warmup_method=method, progress=False), ps.sample(TARGET, **{**SETTINGS, **settings}))


def test_an_instance_among_the_options_of_the_sampler_is_resumed(tmp_path: Path) -> None:
    path, leapfrog = tmp_path / "run.zarr", ps.methods.QuasiNewton(estimator="hutchinson", num_probes=2)
    settings: dict[str, Any] = {"sampler_options": {"leapfrog": leapfrog, "num_integration_steps": 2}}
    settings |= {"method": "sequential"}
    interrupted(path, steps=100, **settings)
    with pytest.raises(ValueError, match=r"sampler_options is \{'leapfrog': 'newton'\}, but .* with \{'leapfrog': Qua"):
        ps.resume(path, sampler_options={"leapfrog": "newton"})
    check_same(ps.resume(path, progress=False), ps.sample(TARGET, **{**SETTINGS, **settings}))


@pytest.mark.parametrize(
    "options",
    [
        {"mass": "low_rank"},
        {"mass": "diagonal", "start": "laplace"},
        pytest.param({"mass": "dense"}, marks=pytest.mark.slow),
    ],
)
def test_what_warm_up_found_is_kept(options: dict[str, Any], tmp_path: Path) -> None:
    """Else a resumed run would silently warm up again."""
    path = tmp_path / "run.zarr"
    interrupted(path, steps=100, method="sequential", **options)
    stages: list[str] = []
    ps.resume(path, progress=lambda event: stages.append(event.stage))
    assert set(stages) == {"sampling"}


def model() -> None:
    numpyro.sample("y", dist.Normal(numpyro.sample("x", dist.HalfNormal(2.0)), 1.0), obs=0.5)


@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_a_start_that_is_a_function_is_kept_as_the_positions_that_it_led_to(
    is_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless there are more of them than settings hold; the function is then passed again."""
    path, again = tmp_path / "run.zarr", {}
    settings: dict[str, Any] = {**SETTINGS, "num_samples": 256, "method": "sequential", "compare": False}
    settings |= {"num_warmup": 20, "start": init_to_median(num_samples=3)}
    if is_large:
        monkeypatch.setattr(freeze, "MOST_NUMBERS", 1)
    expected = ps.sample(model, **settings)
    with pytest.raises(KeyboardInterrupt):
        ps.sample(model, **{**settings, "progress": stop_at("warm-up", 1)}, store=path)
    if is_large:
        with pytest.raises(ValueError, match=r"start is not given, but .* was begun with the function init_to_median,"):
            ps.resume(path, model)
        again = {"start": settings["start"]}
    else:
        assert {name: row.shape for name, row in ps.read_settings(path).start.items()} == {"x": (2,)}
        found = ps.read_settings(expected).arguments(progress=False)
        check_same(ps.sample(model, **found), expected)
    check_same(ps.resume(path, model, progress=False, **again), expected)


def test_a_store_begins_where_it_is_told_though_random_starts_have_no_density(tmp_path: Path) -> None:
    """A density that is above 0 between 5 and 6 alone, where no random start is."""
    density = lambda x: jnp.where((x > 5) & (x < 6), jnp.log(x - 5) + jnp.log(6 - x), -jnp.inf)  # noqa: E731
    options: dict[str, Any] = {**SETTINGS, "num_warmup": 20, "num_samples": 128, "method": "sequential"}
    trace = ps.sample(density, initial_position=0.0, start=5.5, store=tmp_path / "run.zarr", **options)
    assert 5 < float(as_datatree(trace)["posterior"]["x"].min())
    with pytest.raises(ValueError, match="found no start with a finite log density"):
        ps.sample(density, initial_position=0.0, **options)


def change(path: Path, part: str = "settings", **fields: Any) -> None:
    """Change the settings or the counts of a store, as another version or somebody else might."""
    root = json.loads((path / "zarr.json").read_text())
    run = json.loads(root["attributes"][RUN])
    run[part] = json.dumps({**json.loads(run[part]), **fields})
    root["attributes"][RUN] = json.dumps(run)
    (path / "zarr.json").write_text(json.dumps(root))


def test_a_store_names_no_file_that_is_run(tmp_path: Path) -> None:
    """Its target is a Python file, which leaves a mark when it is run."""
    path, model, mark = tmp_path / "run.zarr", tmp_path / "model.py", tmp_path / "mark"
    model.write_text(f"open({str(mark)!r}, 'w').close()\ndef model(): pass\n")
    interrupted(path, "warm-up", 10)
    change(path, target=f"{model}:model")
    with pytest.raises(ValueError, match=rf"the store '{path}' names '{model}:model', a Python file, which would be r"):
        ps.resume(path)
    assert not mark.exists()
    with pytest.raises(ValueError, match="model"):
        ps.resume(path, trust=True)
    assert mark.exists()


@pytest.mark.parametrize("name", ["os.system", "parsample.run.resume.resume", "Adaptation2"])
def test_a_store_names_no_class_that_is_made(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    interrupted(path, "warm-up", 10)
    change(path, sampler_options={"leapfrog": {"@class": name, "fields": {"command": "touch mark"}}})
    with pytest.raises(ValueError, match=rf"cannot be read .*it holds '{name}', which this version does not know"):
        ps.resume(path)


@pytest.mark.parametrize("outside", ["../outside", "posterior/../../outside", "{parent}/outside"])
def test_a_store_has_nothing_written_outside_of_it(outside: str, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    interrupted(path, "warm-up", 10)
    root = json.loads((path / "zarr.json").read_text())
    name = outside.format(parent=tmp_path)
    root["consolidated_metadata"]["metadata"][name] = {"node_type": "array", "zarr_format": 3}
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ValueError, match=rf"cannot be read .*it names an array outside of its folder, '{name}'"):
        ps.resume(path, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["run.zarr"]


ANOTHER = r"store is '.*run.zarr', which cannot be read by this version of parsample \(.*\); go on with the version"


@pytest.mark.parametrize("what", ["settings", "counts", "warm-up", "chains", "file", "state of the run"])
def test_a_store_of_another_version_is_refused_in_a_sentence(what: str, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    interrupted(path)
    private = path / ".parsample"
    if what == "settings":
        change(path, a_new_option=1)
    elif what == "counts":
        change(path, "tally", a_new_count=1)
    elif what == "warm-up":
        with np.load(private / "adaptation.npz") as arrays:
            found = dict(arrays)
        found["structure"] = np.asarray(str(found["structure"]).replace("Standardised", "Standardized"))
        np.savez(private / "adaptation.npz", **found)
    elif what == "chains":
        np.savez(next(private.glob("state-*.npz")), a_new_name=np.zeros(2))
    elif what == "file":
        (private / "adaptation.npz").write_bytes(b"PK damaged")
    else:
        root = json.loads((path / "zarr.json").read_text())
        del root["attributes"][RUN]
        (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ValueError, match=ANOTHER):
        ps.resume(path, progress=False)
    found = invoke("resume", str(path))
    assert (found.exit_code, len(found.stderr.splitlines())) == (2, 1)
