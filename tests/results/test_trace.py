"""The trace: what goes in comes out under the ArviZ at hand, and files open under the other one."""

import datetime
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import parsample.results.trace as trace_module
from parsample.results.trace import (
    arviz_generation,
    as_datatree,
    build_trace,
    check_writable,
    import_arviz,
    load_trace,
    posterior_dataset,
    replacing,
    save_trace,
)

CHAINS, DRAWS, SCHOOLS = 3, 11, ["Choate", "Deerfield", "St. Paul's"]


@pytest.fixture
def groups(rng):
    def draws(*shape, dtype=np.float32):
        return rng.normal(size=(CHAINS, *shape)).astype(dtype)

    return {
        "posterior": {"mu": draws(DRAWS), "theta": draws(DRAWS, 3), "cells": draws(DRAWS, 2, 4, dtype=np.float64)},
        "sample_stats": {"lp": draws(DRAWS), "is_accepted": draws(DRAWS) > 0, "iterations": np.arange(CHAINS)},
        "warmup_posterior": {"mu": draws(2 * DRAWS)},
    }


@pytest.fixture
def trace(groups):
    return build_trace(
        groups,
        dims={"theta": ("school",)},
        coords={"school": SCHOOLS, "unused": [1]},
        attrs={"sampler": "mala", "seed": 7, "window": None, "converged": True, "atol": 1e-4, "sizes": [1, 2]},
    )


def assert_same(tree, groups):
    for group, variables in groups.items():
        for name, values in variables.items():
            np.testing.assert_array_equal(tree[group][name].values, values)
            assert tree[group][name].dtype == values.dtype


def test_container_is_that_of_the_installed_arviz(trace):
    arviz = import_arviz()
    assert arviz_generation() == (0 if arviz.__version__.startswith("0.") else 1)
    assert isinstance(trace, xarray.DataTree if arviz_generation() else arviz.InferenceData)


def test_groups_dims_and_coords(trace, groups):
    tree = as_datatree(trace)
    assert set(tree.children) == set(groups)
    assert_same(tree, groups)
    posterior = posterior_dataset(trace)
    assert posterior["mu"].dims == ("chain", "draw")
    assert posterior["theta"].dims == ("chain", "draw", "school")
    assert posterior["school"].values.tolist() == SCHOOLS
    assert posterior["cells"].dims == ("chain", "draw", "cells_dim_0", "cells_dim_1")
    assert posterior["chain"].values.tolist() == list(range(CHAINS))
    assert tree["warmup_posterior"].sizes["draw"] == 2 * DRAWS
    assert "unused" not in posterior.coords
    assert tree["sample_stats"]["iterations"].dims == ("chain",)
    assert tree["sample_stats"]["is_accepted"].dtype == bool


def test_default_dim_names_are_those_of_arviz(trace, groups):
    arviz = import_arviz()
    draws = groups["posterior"]
    theirs = arviz.from_dict(draws) if arviz_generation() == 0 else arviz.from_dict({"posterior": draws})
    assert posterior_dataset(trace)["cells"].dims == theirs.posterior["cells"].dims


def test_numeric_labels_stay_numbers_and_data_groups_have_no_draws(rng):
    trace = build_trace(
        {"posterior": {"f": rng.normal(size=(2, 5, 2))}, "observed_data": {"y": rng.normal(size=4)}},
        dims={"f": ("x",), "y": ("row",)},
        coords={"x": [0.5, 2.0]},
    )
    tree = as_datatree(trace)
    assert posterior_dataset(trace)["x"].values.tolist() == [0.5, 2.0]
    assert tree["observed_data"]["y"].dims == ("row",)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_widened_and_can_be_saved(tmp_path, dtype):
    values = jnp.linspace(-1, 1, 10, dtype=dtype).reshape(2, 5)
    save_trace(build_trace({"posterior": {"x": values}}), tmp_path / "trace.nc")
    loaded = posterior_dataset(load_trace(tmp_path / "trace.nc"))["x"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded.values, np.asarray(values.astype(jnp.float32)))


def test_attributes_are_on_the_root_and_on_every_group(trace):
    tree = as_datatree(trace)
    for node in (tree, *tree.children.values()):
        assert node.attrs["inference_library"] == node.attrs["creation_library"] == "parsample"
        assert node.attrs["inference_library_version"]
        assert datetime.datetime.fromisoformat(node.attrs["created_at"]).tzinfo is not None
        assert node.attrs["sampler"] == "mala"
        assert node.attrs["converged"] == 1
        assert node.attrs["window"] == "none"
    assert trace.posterior.attrs["seed"] == 7


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, "none"),
        (True, 1),
        (np.bool_(False), 0),
        (2**70, str(2**70)),
        (np.float32(0.5), 0.5),
        (jnp.arange(3), [0, 1, 2]),
        ([True, False], [1, 0]),
        (("a", "b"), ["a", "b"]),
        ([3], "[3]"),
        ([], "[]"),
        ([1, "a", None], '[1, "a", null]'),
        ([[1, 2], [3, 4]], "[[1, 2], [3, 4]]"),
        ({"a": np.float32(2), "b": {"c": None}}, '{"a": 2.0, "b": {"c": null}}'),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (np.dtype("float32"), "float32"),
        (Path("a/b"), "a/b"),
    ],
)
def test_every_attribute_becomes_something_that_netcdf_gives_back(tmp_path, value, stored):
    trace = build_trace({"posterior": {"x": np.zeros((1, 2))}}, attrs={"value": value})
    assert trace.attrs["value"] == stored
    assert type(trace.attrs["value"]) is type(stored)
    save_trace(trace, tmp_path / "trace.nc")
    assert np.asarray(load_trace(tmp_path / "trace.nc").attrs["value"]).tolist() == stored


def test_attributes_can_be_overridden():
    trace = build_trace({"posterior": {"x": np.zeros((1, 2))}}, attrs={"inference_library": "other"})
    assert trace.attrs["inference_library"] == "other"


X = np.zeros((2, 5))


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ({}, {}, "groups: got no group"),
        ({"posterior": {}}, {}, r"groups\['posterior'\]: got no variables"),
        ({"my group": {"x": X}}, {}, "groups: got the name 'my group', expected a Python identifier"),
        ({"posterior": {"a/b": X}}, {}, r"\['a/b'\]: expected a variable name .* no '/'"),
        ({"posterior": {"": X}}, {}, "expected a variable name that is not empty"),
        ({"posterior": {"x": np.zeros(5)}}, {}, r"got shape \(5,\), expected \('chain', 'draw'\) first"),
        ({"sample_stats": {"x": np.zeros(())}}, {}, r"got shape \(\), expected \('chain',\) first"),
        ({"posterior": {"x": np.zeros((2, 0))}}, {}, r"got shape \(2, 0\), expected no axis of length 0"),
        ({"posterior": {"x": X.astype(complex)}}, {}, "got dtype complex128, expected real numbers"),
        ({"posterior": {"x": X.astype(str)}}, {}, "got dtype <U32, expected real numbers"),
        ({"posterior": {"x": X, "y": X[:1]}}, {}, r"numbers of chains \(2 in .*'x'.*, 1 in .*'y'.*\)"),
        ({"posterior": {"x": X}, "sample_stats": {"n": np.zeros(3)}}, {}, "different numbers of chains"),
        ({"posterior": {"x": X, "y": X[:, :4]}}, {}, "got length 4 along 'draw', expected 5"),
        ({"posterior": {"x": X}}, {"dims": {"xx": ("a",)}}, r"dims: got names for xx, expected variables .*\(x\)"),
        ({"posterior": {"x": X}}, {"dims": {"x": ("a",)}}, r"dims\['x'\]: got 1 names .* expected 0"),
        ({"posterior": {"x": X[..., None]}}, {"dims": {"x": ("draw",)}}, "names that differ and are not 'chain'"),
        ({"posterior": {"x": X[..., None]}}, {"dims": {"x": ("x",)}}, "got 'x' as a dim and as a variable"),
        (
            {"posterior": {"x": X[..., None], "y": X[..., None, None].repeat(2, 3)}},
            {"dims": {"x": ("a",), "y": ("b", "a")}},
            "got length 2 along 'a', expected 1",
        ),
        (
            {"posterior": {"x": X[..., None]}},
            {"dims": {"x": ("a",)}, "coords": {"a": ["p", "q"]}},
            r"coords\['a'\]: got 2 labels, expected 1",
        ),
        ({"posterior": {"x": X}}, {"attrs": {"": 1}}, "attrs: got the name ''"),
    ],
)
def test_bad_input_is_named(groups, options, message):
    with pytest.raises(ValueError, match=message):
        build_trace(groups, **options)


def test_as_datatree_takes_both_containers_and_nothing_else(trace):
    tree = as_datatree(trace)
    assert as_datatree(tree) is tree
    assert tree.attrs["sampler"] == "mala"
    others: list[Any] = [{"posterior": {}}, None, tree["posterior"].to_dataset()]
    for other in others:
        with pytest.raises(ValueError, match=r"trace: got .*, expected an arviz.InferenceData or an xarray.DataTree"):
            as_datatree(other)


def test_a_trace_without_draws_is_named():
    trace = build_trace({"sample_stats": {"lp": X}})
    with pytest.raises(ValueError, match=r"expected a group 'posterior' .*, got groups: sample_stats"):
        posterior_dataset(trace)


def test_saved_and_loaded_is_the_same(trace, groups, tmp_path):
    assert save_trace(trace, tmp_path / "trace.nc") == tmp_path / "trace.nc"
    loaded = load_trace(tmp_path / "trace.nc")
    # Everything is in memory, and the file is closed.
    (tmp_path / "trace.nc").unlink()
    assert type(loaded) is type(trace)
    tree = as_datatree(loaded)
    assert_same(tree, groups)
    assert posterior_dataset(loaded)["school"].values.tolist() == SCHOOLS
    assert tree["sample_stats"]["iterations"].dims == ("chain",)
    for node in (tree, *tree.children.values()):
        assert node.attrs["seed"] == 7
        assert list(node.attrs["sizes"]) == [1, 2]


def test_arviz_opens_the_file(trace, groups, tmp_path):
    opened = import_arviz().from_netcdf(save_trace(trace, tmp_path / "trace.nc"))
    assert type(opened) is type(trace)
    np.testing.assert_array_equal(opened.posterior["theta"].values, groups["posterior"]["theta"])
    np.testing.assert_array_equal(opened.warmup_posterior["mu"].values, groups["warmup_posterior"]["mu"])
    assert opened.attrs["sampler"] == "mala"
    opened.close()


def test_a_plain_datatree_saves_the_same_file(trace, groups, tmp_path):
    save_trace(as_datatree(trace), tmp_path / "trace.nc")
    loaded = load_trace(tmp_path / "trace.nc")
    assert type(loaded) is type(trace)
    assert_same(as_datatree(loaded), groups)


OTHER_SIDE = """
import sys, warnings
warnings.simplefilter("error")
from parsample.results.trace import arviz_generation, as_datatree, import_arviz, load_trace, save_trace
given, made = sys.argv[1:]
loaded = load_trace(given)
opened = import_arviz().from_netcdf(given)
assert type(opened) is type(loaded)
assert float(opened.posterior["mu"].sum()) == float(loaded.posterior["mu"].sum())
save_trace(loaded, made)
print(arviz_generation(), type(loaded).__name__, sorted(as_datatree(loaded).children))
"""


def test_files_pass_between_the_generations(trace, groups, repository, tmp_path):
    other = os.environ.get("PARSAMPLE_OTHER_PYTHON")
    if not other:
        pytest.skip("set PARSAMPLE_OTHER_PYTHON to an interpreter that has the other generation of ArviZ")
    given, made = save_trace(trace, tmp_path / "given.nc"), tmp_path / "made.nc"
    environment = os.environ | {"PYTHONPATH": str(repository)}
    command = [other, "-c", OTHER_SIDE, str(given), str(made)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split()[0] == str(1 - arviz_generation())
    returned = load_trace(made)
    assert_same(as_datatree(returned), groups)
    assert returned.posterior["school"].values.tolist() == SCHOOLS
    assert returned.posterior.attrs["seed"] == 7


def test_importing_the_module_costs_no_arviz(repository):
    code = "import sys, parsample.results.trace; print([m for m in ('arviz', 'xarray', 'pandas') if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(repository)}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(trace, tmp_path, monkeypatch, error):
    path = tmp_path / "trace.nc"
    path.write_text("old")

    def half(tree, target):
        Path(target).write_text("half")
        raise error

    monkeypatch.setattr(trace_module, "write_netcdf", half)
    with pytest.raises(error):
        save_trace(trace, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["trace.nc"]


def test_replacing_follows_links_and_the_umask(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    plain, link = folder / "plain", tmp_path / "link.nc"
    plain.write_text("made by anyone")
    (folder / "trace.nc").write_text("old")
    link.symlink_to(folder / "trace.nc")
    with (folder / "trace.nc").open() as reader:
        with replacing(link) as temporary:
            assert temporary.parent == folder
            temporary.write_text("new")
        # Whoever reads the old file reads it to its end: it was replaced, not written over.
        assert reader.read() == "old"
    assert link.is_symlink()
    assert (folder / "trace.nc").read_text() == "new"
    assert stat.S_IMODE((folder / "trace.nc").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert sorted(os.listdir(folder)) == ["plain", "trace.nc"]


def test_check_writable_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_writable("trace.nc") == check_writable("~/trace.nc") == tmp_path / "trace.nc"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "path: got an empty path"),
        (".", "is a folder, expected a file"),
        ("none/here/trace.nc", r"there is no folder '.*none/here' to put 'trace.nc' in; create it \(mkdir -p"),
        ("file/trace.nc", "there is no folder"),
        ("pipe", "is a device, pipe or socket"),
        ("x" * 300, "cannot be written .*name too long"),
    ],
)
def test_paths_that_cannot_be_written_are_named_before_anything_is(trace, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for call in (check_writable, lambda path: save_trace(trace, path)):
        with pytest.raises(ValueError, match=message):
            call(name)
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]


def test_a_folder_that_takes_no_files_is_found_by_trying(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    # Root, who often runs tests, may write everywhere: the system's answer is played.
    monkeypatch.setattr(trace_module.os, "open", refuse)
    with pytest.raises(ValueError, match=r"cannot be written \(Permission denied\); choose a place"):
        check_writable(tmp_path / "trace.nc")


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"path: there is no file '.*none.nc'"):
        load_trace(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(ValueError, match=r"text.nc' is not a netCDF-4 file"):
        load_trace(tmp_path / "text.nc")
