import jax.numpy as jnp
import numpy as np
import pytest

from parsample.targets import GermanCredit
from tests.targets.builders import log_density, write_credit_file
from tests.targets.test_logistic_regression import reference, with_ones
from tests.tolerances import SAME_COMPUTATION


def test_log_density_is_that_of_the_standardised_file(shared_data, x64, rng):
    path = shared_data / "german.data-numeric"
    target = GermanCredit(data=path)
    table = np.loadtxt(path)
    features = (table[:, :24] - table[:, :24].mean(0)) / table[:, :24].std(0)
    coefficients = rng.standard_normal(25)
    expected = reference(with_ones(features), table[:, 24] == 2, coefficients)
    SAME_COMPUTATION.check(log_density(target, coefficients=coefficients), expected)
    assert target.signed_features.shape == (25, 1000)
    assert int(jnp.sum(target.signed_features[0] == 1)) == 300, "bad credits have the label 1"


def test_coefficients_are_numbered(tmp_path):
    target = GermanCredit(data=str(write_credit_file(tmp_path / "file")))
    assert target.coords["feature"] == ["intercept", *(f"attribute_{j}" for j in range(1, 25))]


def test_without_a_path_the_error_says_where_to_give_it():
    with pytest.raises(ValueError, match=r"data is None, expected the path of the UCI file .*data=PATH.*--data PATH"):
        GermanCredit()


def test_blank_lines_are_skipped(tmp_path):
    path = write_credit_file(tmp_path / "file")
    rows = GermanCredit(data=path).signed_features
    path.write_text(path.read_text() + "\n  \n")
    np.testing.assert_array_equal(GermanCredit(data=path).signed_features, rows)


def write_line(path, number, change):
    """Change one line of a good file, counted from 1."""
    lines = write_credit_file(path).read_text().splitlines()
    lines[number - 1] = change(lines[number - 1].split())
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda words: " ".join(words[:-1]), r"line 7 of '.*file' has 24 columns, expected 24 features and a label"),
        (lambda words: " ".join([*words, "1"]), r"line 7 of '.*file' has 26 columns"),
        (lambda words: " ".join(["A11", *words[1:]]), r"line 7 of .* has 'A11' in column 1, expected a number"),
        (lambda words: " ".join([words[0], "nan", *words[2:]]), r"line 7 .* has 'nan' in column 2, expected a finite"),
        (lambda words: " ".join([*words[:-1], "0"]), r"line 7 .* has the label 0, expected 1 for a good credit or 2"),
    ],
)
def test_bad_lines_are_named(change, message, tmp_path):
    path = write_line(tmp_path / "file", 7, change)
    with pytest.raises(ValueError, match=message):
        GermanCredit(data=path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"data is '.*missing', which cannot be read \(No such file or directory\)"):
        GermanCredit(data=tmp_path / "missing")
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory\)"):
        GermanCredit(data=tmp_path)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"cannot be read \(it is not a text file\); give the path of that file"):
        GermanCredit(data=binary)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(ValueError, match=r"data is '.*empty', which has no rows, expected 24 features and a label"):
        GermanCredit(data=empty)
