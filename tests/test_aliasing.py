"""What is handed to JAX is not changed in place: on a CPU it reads a NumPy array where it lies, and may do so later."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "parsample"
FILES = sorted(PACKAGE.rglob("*.py"))
LOOPS = ast.For | ast.While


def changed_after_all(source: str) -> list[str]:
    """Return what a function hands to JAX and changes in place later, or in the same loop, as "line: name"."""
    found = set()
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            changes = list(in_place(function))
            loops = [(row.lineno, row.end_lineno or 0) for row in ast.walk(function) if isinstance(row, LOOPS)]
            for line, name in handed_over(function):
                ends = max((end for first, end in loops if first <= line <= end), default=line)
                starts = min((first for first, end in loops if first <= line <= end), default=line)
                later = [row for row, changed in changes if changed == name and (row > line or starts <= row <= ends)]
                found |= {f"{line}: {name}" for _ in later}
    return sorted(found)


def handed_over(function: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of what is an argument of a function of JAX's."""
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[0] in ("jnp", "jax"):
            for row in [*call.args, *(keyword.value for keyword in call.keywords)]:
                yield call.lineno, ast.unparse(row.value if isinstance(row, ast.Subscript) else row)


def in_place(function: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of what is changed in place, if it is an array: `a |= ...` and `a[...] = ...`."""
    for row in ast.walk(function):
        if isinstance(row, ast.Assign | ast.AugAssign):
            for target in [row.target] if isinstance(row, ast.AugAssign) else row.targets:
                if isinstance(target, ast.Subscript):
                    yield row.lineno, ast.unparse(target.value)
                elif isinstance(row, ast.AugAssign):
                    yield row.lineno, ast.unparse(target)


def test_it_is_found() -> None:
    source = """
def f(x, y, z):
    z += 1
    for _ in x:
        a = jnp.where(y[:, None], x, z)
        y |= a
    x[0] = 1
"""
    assert changed_after_all(source) == ["5: x", "5: y"]


@pytest.mark.parametrize("file", FILES, ids=[file.relative_to(PACKAGE).as_posix() for file in FILES])
def test_what_is_handed_to_jax_is_not_changed_in_place(file: Path) -> None:
    assert not changed_after_all(file.read_text("utf-8"))
