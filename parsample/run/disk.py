"""A run that writes its draws to the disk as it goes, and can go on from there.

Every `commit` puts rows, the chains' unknowns and the counts of the verdict on the disk, and then replaces one file;
see `parsample.store.layout`. Whatever ends the process, the store is that of the last commit.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from parsample.results.attributes import standard_attributes, storable_attributes
from parsample.results.groups import EVALUATION, MADE_OF_DRAWS, Groups, joined
from parsample.results.trace import Trace, as_datatree, load_trace
from parsample.run.counts import Tally
from parsample.run.freeze import freeze, thaw
from parsample.run.interrupts import Interrupted, holding_interrupts
from parsample.run.plan import piece_of
from parsample.run.result import Outcome
from parsample.run.segments import Job
from parsample.run.settings import Settings
from parsample.samplers.chains import is_loop
from parsample.store.layout import PRIVATE, Layout, read_run, reading, rows_of_chunk, write_durably
from parsample.targets.base import Target
from parsample.warmup.adapt import Adaptation

# Seconds after which what is there is committed, though it fills no chunk: what a crash can cost.
COMMIT_EVERY = 10.0


class _Pending(NamedTuple):
    """What is not committed: the rows, the counts, and the unknowns from which the run goes on."""

    blocks: tuple[Groups, ...]
    tally: Tally
    states: Any


class _Committed(Mapping[str, np.ndarray]):
    """Committed draws of a group, from one to before another, each variable read when it is asked for."""

    def __init__(self, layout: Layout, first: int, last: int, group: str = "posterior"):
        self.arrays = {
            path.removeprefix(f"{group}/"): array
            for path, array in layout.arrays.items()
            if path.startswith(f"{group}/") and array.ndim > 1
        }
        self.rows = slice(first, last)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name][:, self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


class Store:
    """Where a run keeps its draws.

    Attributes:
        path: the folder, as the user named it.
        tally: how far the committed part is; None before the first piece.
        is_complete: whether the run is over.
        wants_draws: whether a run goes on after warm-up.
    """

    wants_draws = True

    def __init__(self, path: str | os.PathLike[str], settings: Settings, is_new: bool):
        """Begin a store, or go on with one. Use `open_store.open_store`, which also locks it."""
        self.path, self.folder = os.fspath(path), Path(path).expanduser()
        self.settings, self.is_new = settings, is_new
        self.run: dict[str, Any] = {"settings": settings.to_json(), "complete": False} if is_new else read_run(path)
        with reading(path):
            self.layout = Layout(self.folder)
            self.tally = self._stored_tally()
            self.is_complete, self.is_changed = bool(self.run["complete"]), False
        self.layout.draws = self._rows_of(self.tally)
        self.pending: _Pending | None = None
        self.outcome: Outcome | None = None
        self.committed_at = time.monotonic()

    @property
    def runs(self) -> Path:
        """The file in which finished runs of a model outside of JAX are kept."""
        return self.folder / PRIVATE / "runs"

    def identify(self, fingerprint: Callable[[], dict[str, Any]]) -> None:
        """Write down what the run is of, or see that it is the same.

        Raises:
            ValueError: the store is of something else.
        """
        if self.is_new:
            self.run["fingerprint"] = fingerprint()
        else:
            _check_same(self.path, self.run["fingerprint"], fingerprint())
        if self.is_new or self.is_changed:
            with self._telling_what_is_safe():
                self._commit_run()

    def change_number(self, job: Job) -> None:
        """Make ready for the number of draws of a job, where that is another than the store's.

        Nothing is written before `identify`. Where the segments or pieces of so many draws have another length, they
        would differ in rounding, or in what `until` looks at: the run begins anew after warm-up, or before it where
        that depends on the length.

        Raises:
            ValueError: the store holds more draws.
        """
        before, wanted = Settings.from_json(self.run["settings"]).num_samples, self.settings.num_samples
        stored = self.tally.done if self.tally else 0
        if wanted < stored:
            raise ValueError(
                f"num_samples is {wanted}, but the store '{self.path}' holds {stored} steps of each chain already, "
                "expected at least as many; give more, or begin a new store."
            )
        if wanted == before:
            return
        self.run |= {"settings": self.settings.to_json()}
        self.is_changed, self.is_complete = True, False
        if self.tally is not None and self.tally.steps == job.plan.steps and piece_of(before, job.target) == job.piece:
            self.layout.rewind(self._rows_of(self.tally), MADE_OF_DRAWS)
            return
        self.tally = None
        self.layout.rewind(0, [path for path in self.layout.metadata if "/" not in path])
        depends = self.settings.tune is not None or not is_loop(job.warmup_plan)
        for name in ("tally", "state", *(("warmup_seconds",) if depends else ())):
            self.run.pop(name, None)

    def _stored_tally(self) -> Tally | None:
        """Return the counts; those of earlier versions counted steps beyond the last draw as well."""
        if "tally" not in self.run:
            return None
        tally = Tally.from_json(self.run["tally"])
        most = Settings.from_json(self.run["settings"]).num_samples
        return dataclasses.replace(tally, done=min(tally.done, most))

    def _rows_of(self, tally: Tally | None) -> int:
        return 0 if tally is None else tally.done // self.settings.thin

    def adaptation(self, target: Target) -> tuple[Adaptation, float] | None:
        """Return what warm-up found and the seconds it took, or None if it has still to be done."""
        file = self.folder / PRIVATE / "adaptation.npz"
        if "warmup_seconds" not in self.run or not file.is_file():
            return None
        with reading(self.path), np.load(file) as arrays:
            if "state" in self.run:  # which a run that has begun must not find unreadable
                with np.load(self.folder / PRIVATE / self.run["state"]) as state:
                    state["leaf_0"]
            return thaw(json.loads(str(arrays["structure"])), arrays, target), self.run["warmup_seconds"]

    def warmed_up(self, outcome: Outcome) -> None:
        """Keep what warm-up found. Where it cannot be written down, a resumed run warms up again, to the same end."""
        self.outcome = outcome
        if "warmup_seconds" in self.run:
            return
        arrays: dict[str, Any] = {}
        try:
            arrays["structure"] = np.asarray(json.dumps(freeze(outcome.adaptation, arrays)))
        except TypeError:
            return
        with self._telling_what_is_safe(), holding_interrupts():
            write_durably(self.folder / PRIVATE / "adaptation.npz", lambda file: np.savez(file, **arrays))
            self.run["warmup_seconds"] = outcome.warmup_seconds
            self._commit_run()

    def states(self, like: Any) -> Any:
        """Return where the chains stand, in the form of `like`."""
        if "state" not in self.run:
            return like
        with reading(self.path), np.load(self.folder / PRIVATE / self.run["state"]) as arrays:
            leaves = [jax.numpy.asarray(arrays[f"leaf_{place}"]) for place in range(len(jax.tree.leaves(like)))]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def see(self, evaluation: dict[str, np.ndarray]) -> None:
        """Keep what the iterations of the first segment saw, for the end."""
        arrays: dict[str, Any] = dict(evaluation)
        with self._telling_what_is_safe():
            write_durably(self.folder / PRIVATE / "evaluation.npz", lambda file: np.savez(file, **arrays))

    def _seen(self) -> Groups:
        with np.load(self.folder / PRIVATE / "evaluation.npz") as arrays:
            return {EVALUATION: dict(arrays)} if arrays.files else {}

    def add(self, rows: Groups, tally: Tally, states: Any) -> None:
        """Take the rows of a piece; they are written when they fill a chunk, or some seconds have gone by.

        Args:
            rows: group -> variable -> values, shape (chain, draw, ...).
            tally: counts, the piece included.
            states: the unknowns from which the run goes on.
        """
        blocks = self.pending.blocks if self.pending else ()
        # One assignment: an interrupt finds the piece either here or not.
        self.pending = _Pending((*blocks, rows), tally, states)
        draw = self.layout.arrays.get("posterior/draw")
        rows_wanted = draw.chunks[0] if draw is not None else 1
        if (
            sum(map(_length, self.pending.blocks)) >= rows_wanted
            or time.monotonic() - self.committed_at >= COMMIT_EVERY
        ):
            self.commit()

    def draws(self, group: str = "posterior") -> list[Mapping[str, Any]]:
        """Return the draws so far, or their statistics, in parts."""
        committed = [_Committed(self.layout, 0, self.layout.draws, group)] if self.layout.draws else []
        return [*committed, *(block[group] for block in (self.pending.blocks if self.pending else ()))]

    def _create(self, rows: Groups) -> None:
        """Make the arrays, like the first rows."""
        assert self.outcome is not None
        most = self.settings.num_samples // self.settings.thin
        self.layout.create(as_datatree(self.outcome.build(rows, {})), rows_of_chunk(rows, most))

    def commit(self) -> None:
        """Put what is pending on the disk.

        Raises:
            OSError: it cannot be written, because the disk is full, say; the store is that of the commit before.
        """
        if self.pending is None:
            return
        blocks, tally, states = self.pending
        with self._telling_what_is_safe(), holding_interrupts():
            blocks = tuple(block for block in blocks if _length(block))
            if blocks and not self.layout.length:
                self._create(blocks[0])
            if blocks:
                self.layout.append(joined(blocks))
            self._keep_states(tally, states)
            self.run |= {"tally": tally.to_json()}
            self._commit_run(tally)
            self.tally, self.pending, self.committed_at = tally, None, time.monotonic()
            for file in (self.folder / PRIVATE).glob("state-*.npz"):
                if file.name != self.run.get("state"):
                    file.unlink(missing_ok=True)

    def _keep_states(self, tally: Tally, states: Any) -> None:
        name = f"state-{tally.segment_start}.npz"
        if name == self.run.get("state"):
            return
        leaves: dict[str, Any] = {
            f"leaf_{place}": np.asarray(leaf) for place, leaf in enumerate(jax.tree.leaves(states))
        }
        write_durably(self.folder / PRIVATE / name, lambda file: np.savez(file, **leaves))
        self.run |= {"state": name}

    def _commit_run(self, tally: Tally | None = None) -> None:
        before = self.layout.attributes | {"settings": self.run["settings"]}
        known = self.outcome.attributes(tally) if self.outcome and tally else before
        attributes = standard_attributes() | storable_attributes(known)
        attributes |= {"store_complete": int(self.is_complete), "store_draws": self.layout.length}
        self.layout.commit(attributes, {**self.run, "complete": self.is_complete})

    @contextlib.contextmanager
    def _telling_what_is_safe(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What was written and not committed is to be written again.
            safe = self.tally.done if self.tally else 0
            raise OSError(
                f"store '{self.path}' cannot be written ({error.strerror or error}); its first {safe:,} steps of each "
                f"chain are safe. Mend that, by making room say, and go on with `parsample resume {self.path}` or "
                "parsample.resume."
            ) from error

    def finish(self, tally: Tally) -> Trace:
        """Write what remains, and return the trace, opened from the store.

        Args:
            tally: of the whole run.
        """
        assert self.outcome is not None
        self.commit()
        further = self.outcome.build(self.outcome.further(tally) | self._seen(), {})
        with self._telling_what_is_safe():
            self._write_requested(self.outcome)
        with self._telling_what_is_safe(), holding_interrupts():
            self.layout.create(as_datatree(further))
            self.is_complete, self.tally = True, tally
            self.run |= {"tally": tally.to_json()}
            self._commit_run(tally)
            self.layout.write_own_metadata()
        return load_trace(self.path)

    def _write_requested(self, outcome: Outcome) -> None:
        """Write the groups that were asked for, a chunk or a block of rows at a time."""
        num_draws, first, chunk = self.layout.draws, 0, 0
        blocks: list[Groups] = []
        for block in outcome.requested(num_draws, lambda *rows: _Committed(self.layout, *rows)):
            if not chunk:
                chunk = rows_of_chunk(block, num_draws)
                self.layout.create(as_datatree(outcome.build(block, {})), chunk)
            blocks.append(block)
            if sum(map(_length, blocks)) >= chunk:
                first, blocks = self.layout.write(joined(blocks), first), []
        if blocks:
            self.layout.write(joined(blocks), first)

    def so_far(self, can_write: bool) -> Trace:
        """Commit what is there, unless writing is what failed, and return it, opened from the store.

        Raises:
            ValueError: there are no draws.
        """
        if can_write:
            self.commit()
        return load_trace(self.path)

    def interrupted(self) -> Interrupted:
        """Commit what is there, and return the interrupt that says how to go on."""
        self.commit()
        done = self.tally.done if self.tally else 0
        return Interrupted(
            f"interrupted; {done:,} steps of each chain are in '{self.path}'; go on with `parsample resume "
            f"{self.path}` or parsample.resume."
        )


def _length(rows: Groups) -> int:
    return next(iter(next(iter(rows.values())).values())).shape[1]


def _check_same(path: str, known: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for name, value in found.items():
        before: Any = known.get(name)
        if name == "log densities at the starts":
            if np.shape(before) == np.shape(value) and np.allclose(before, value, rtol=1e-5, atol=0, equal_nan=True):
                continue
            before, value = np.round(before, 4).tolist(), np.round(value, 4).tolist()
        if before != value:
            raise ValueError(
                f"store '{path}' was begun with another run: {name} {'are' if name[-1] == 's' else 'is'} {before} "
                f"there and {value} here; resume it with the model, data and versions it was begun with, or begin a "
                "new store."
            )
