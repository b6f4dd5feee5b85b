"""Long chains with a store and without: time and memory.

    python -m benchmarks.long_run

Each run is a process of its own: MALA by the sequential loop on a normal distribution in ten dimensions, one chain.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.device import write_table

RUN = """
import json, os, resource, sys, time
import jax.numpy as jnp
import parsample as ps
num_samples, store = int(sys.argv[1]), sys.argv[2] or None
began = time.perf_counter()
ps.sample(lambda x: -0.5 * jnp.sum(x**2), "mala", initial_position=jnp.zeros(10), num_warmup=500,
          num_samples=num_samples, num_chains=1, method="sequential", store=store, progress=False)
seconds = time.perf_counter() - began
files = [os.path.join(folder, name) for folder, _, names in os.walk(store or "") for name in names]
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds, len(files),
                  sum(map(os.path.getsize, files)) / 2**20]))
"""
NOTE = (
    "One chain of MALA on a ten-dimensional normal distribution by the sequential loop, float32, 500 steps of warm-up. "
    "Memory is the largest resident set of the process, with Python, JAX and ArviZ in it. Of the store's, 16 bytes a "
    "draw are the labels of the draws, which xarray reads when the trace is opened at the end. "
    "The machine was busy with other work, so the seconds say little; they include starting and compiling. "
    "From `python -m benchmarks.long_run`."
)
LENGTHS = (10_000, 1_000_000, 10_000_000)


def measure(num_samples: int, has_store: bool) -> list[object]:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "run.zarr") if has_store else ""
        command = [sys.executable, "-c", RUN, str(num_samples), store]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    memory, seconds, files, size = json.loads(answer.stdout.splitlines()[-1])
    disk = f"{size:,.0f} MiB in {files:,} files" if has_store else ""
    return [f"{num_samples:,}", "yes" if has_store else "no", f"{memory:,.0f}", f"{seconds:.0f}", disk]


def main() -> None:
    rows = [measure(length, has_store) for length in LENGTHS for has_store in (True, False)]
    header = ["draws", "store", "memory, MiB", "seconds", "on the disk"]
    write_table("long_run", "Long chains: memory with a store and without", NOTE, header, rows)


if __name__ == "__main__":
    main()
