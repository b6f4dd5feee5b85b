"""What XLA is asked for before it starts: to compile small loops as one function each."""

import importlib.metadata
import os
import sys

# In bytes that a loop reads and writes. XLA's own limit was 1,024, beyond which it calls every operation of a loop by
# itself: an ordinary differential equation of two numbers takes five times as long for four chains as it has to. Beyond
# ours are products of matrices that it may do better by themselves.
NAME, LIMIT = "xla_cpu_small_while_loop_byte_threshold", 2**16
OPTION = "--xla_backend_extra_options"
# Of jaxlib: from here on XLA compiles larger loops whole as well.
WHOLE_BY_ITSELF = (0, 12)


def compile_small_loops_whole() -> None:
    """Put the limit for small loops on a CPU into XLA_FLAGS.

    Unless XLA has a larger one; or the flags set options of this kind themselves, or name a file; or JAX has started,
    which has read them by then. To have the former limit, set
    XLA_FLAGS=--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1024.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if is_needed() and OPTION not in flags and flags[:1] in ("", "-") and not _has_started():
        os.environ["XLA_FLAGS"] = f"{flags} {OPTION}={NAME}={LIMIT}".strip()


def is_needed() -> bool:
    """Say whether XLA would leave small loops apart."""
    return tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < WHOLE_BY_ITSELF


def _has_started() -> bool:
    """Say whether JAX has a device already, without importing it."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and getattr(bridge, "backends_are_initialized", lambda: False)()
