"""What is put into XLA_FLAGS, when not, and that XLA does it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parsample import _xla

LIMIT = f"{_xla.OPTION}={_xla.NAME}={_xla.LIMIT}"
LOOP = """
import jax
import jax.numpy as jnp

def field(state, _):
    u, v = state[:, 0], state[:, 1]
    return state + 0.01 * jnp.stack([(1 - v) * u, (u - 1) * v], 1), None

solve = jax.jit(lambda state: jax.lax.scan(field, state, length=100)[0])
print("xla_cpu_small_call" in solve.lower(jnp.ones((100, 2))).compile().as_text())
"""


def printed(program: str, flags: str | None) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=kept | ({} if flags is None else {"XLA_FLAGS": flags}),
        cwd=Path(__file__).resolve().parents[1],
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", LIMIT),
        ("--xla_force_host_platform_device_count=2", f"--xla_force_host_platform_device_count=2 {LIMIT}"),
        (f"{_xla.OPTION}=xla_cpu_fold_all_constants=1", f"{_xla.OPTION}=xla_cpu_fold_all_constants=1"),
        ("a/file/of/flags", "a/file/of/flags"),
    ],
)
def test_flags_of_the_caller_are_kept(flags: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_xla, "_has_started", lambda: False)
    for is_needed in (False, True, True):
        monkeypatch.setenv("XLA_FLAGS", flags)
        monkeypatch.setattr(_xla, "is_needed", lambda is_needed=is_needed: is_needed)
        _xla.compile_small_loops_whole()
        assert os.environ["XLA_FLAGS"] == (expected if is_needed else flags)
    _xla.compile_small_loops_whole()
    assert os.environ["XLA_FLAGS"] == expected


@pytest.mark.parametrize(
    ("first", "flags", "is_whole", "is_put_in"),
    [
        ("import parsample", None, True, _xla.is_needed()),
        ("import jax, parsample", None, True, _xla.is_needed()),
        ("import jax; jax.devices(); import parsample", None, not _xla.is_needed(), False),
        ("import parsample", f"{_xla.OPTION}={_xla.NAME}=1024", False, False),
    ],
)
def test_small_loops_are_whole_where_jax_has_not_started(
    first: str, flags: str | None, is_whole: bool, is_put_in: bool
) -> None:
    found = printed(f"{first}\n{LOOP}\nimport os; print(repr(os.environ.get('XLA_FLAGS', '')))", flags)
    assert found.splitlines() == [str(is_whole), repr(LIMIT if is_put_in else flags or "")]
