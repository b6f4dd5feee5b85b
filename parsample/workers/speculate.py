"""Chains on a model that runs outside of JAX: evaluated many steps ahead, by speculation that is made good.

1. Chains are rolled out from where they stand, with what the model has returned so far, and a guess where it was not
   run yet (`rollout.roll_out`).
2. The points that the rollout asks for are sent to the workers, those first that are needed first, as many as can run
   at once. What comes back stands in for its neighbourhood too: the guess is corrected by how far off it was there.
3. A step is final once all before it are, and the model was run at the very points that it asks for. The window moves
   past it, and the chains are rolled out again.

So a round of runs makes every chain go on by at least one step, and by as many as were foreseen. The chain is that of
the loop, which is a window of one.

Source: Brockwell 2006, "Parallel Markov chain Monte Carlo simulation by pre-fetching", and Angelino et al. 2014 for
prefetching by a cheap approximation; Lions, Maday & Turinici 2001 (Parareal) for the correction; Grazzi & Zanella 2025
(Online Picard) for the exact prefix.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from parsample.engine.solution import Solution, Status
from parsample.workers.pool import Workers
from parsample.workers.rollout import Problem, Queries, Rollout, Rows, Standing, count, roll_out
from parsample.workers.rounds import Round

# Steps that a compiled rollout has at least, so that a loop of one and a window of many are one program.
SHORTEST = 8
# After so many more runs, as a multiple, the guess is made anew.
LEARN = 1.5
# Where chains can go on, runs that are about to end are waited for first: for this share of what a run takes, and this
# many seconds at most.
GRACE, LONGEST_GRACE = 0.2, 10.0
# Between two looks meanwhile.
PAUSE, LONGEST_PAUSE = 0.02, 0.1
# The step of a hole that belongs to where a chain stands.
START = -1


class Query(NamedTuple):
    """A hole without an answer.

    Attributes:
        depth: how many holes of the chain are before it.
        place: which chain, which step, counted from its first, and which hole of the step.
        queries: of the rollout.
        row: of it, in `queries`.
    """

    depth: int
    place: tuple[int, int, int]
    queries: Queries
    row: tuple[int, ...]

    @property
    def key(self) -> tuple:
        """What tells it from others: where it stands, and the point."""
        return self.place, self.queries.point[self.row].tobytes()


class Flight(NamedTuple):
    """A run on its way: what for, and where it will come back."""

    query: Query
    round: Round
    number: int

    @property
    def is_done(self) -> bool:
        """Whether it has come back."""
        return bool(self.round.done[self.number])

    @property
    def has_failed(self) -> bool:
        """Whether it failed, and was not needed for certain."""
        return bool(self.round.failed[self.number])


class Settled(NamedTuple):
    """Final steps of a chain: the carry after each, where the model was run for it, details, how far off runs were."""

    carries: PyTree
    vectors: Float[np.ndarray, "steps dim"]
    details: PyTree
    residual: Float[np.ndarray, " steps"]


class Speculation:
    """Chains, and the runs that are on their way for them."""

    def __init__(
        self,
        problem: Problem,
        workers: Workers,
        standing: Standing,
        inputs: Callable[[int, int], PyTree],
        limit: int,
        *,
        step_sizes: Float[np.ndarray, " chain"],
        window: int,
        tolerances: tuple[float, float] = (0.0, 0.0),
        keeps_runs: bool = False,
    ):
        """Begin.

        Args:
            problem: the chains.
            workers: to run the model on.
            standing: where the chains begin, leading axis `chain`.
            inputs: from the first step and the one after the last to these steps' inputs, axes (chain, steps).
            limit: steps that the chains make at most: nothing beyond is run.
            step_sizes: of each chain.
            window: how far ahead of a chain's first step without an answer the model is run, counted in runs; over all
                chains as many run at once as there are workers.
            tolerances: absolute and relative, in the units of a point: see `rollout.roll_out`.
            keeps_runs: whether `runs_passed` are kept.

        Raises:
            ValueError: the sampler evaluates no log density, or an unknown number of times.
        """
        self.problem, self.workers, self.inputs, self.limit = problem, workers, inputs, limit
        self.rolling = roll_out.of(problem)
        self.standing: Standing = jax.device_get(standing)
        self.step_sizes, self.chains = step_sizes, len(self.standing.is_known)
        self.drawn: tuple[int, PyTree] = 0, jax.device_get(inputs(0, 1))
        carry, input = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in (self.standing.carry, self.drawn[1]))
        counted = count(problem, carry, jax.tree.map(lambda leaf: leaf[0], input))
        self.holes, self.capacity = counted.of_step, int(workers.size)
        self.ahead = window
        self.span = max(SHORTEST, -(-min(window, max(1, 4 * self.capacity // self.chains)) // self.holes))
        self.at_start = _no_rows((self.chains, counted.of_start), counted.point)
        self.rows = _no_rows((self.chains, self.span, self.holes), counted.point)
        self.tolerances = tuple(jnp.asarray(number, counted.point.dtype) for number in tolerances)
        self.base = np.zeros(self.chains, int)
        self.settled: list[list[Settled]] = [[] for _ in range(self.chains)]
        self.flights: list[Flight] = []
        self.returned, self.sent = 0, np.zeros(self.chains, int)
        self.seconds, self.lag = 0.0, 0.0
        self.runs, self.learnt = 1, 0
        self.keeps_runs = keeps_runs
        # Where the model was run for steps that are final, and the log density there.
        self.runs_passed: list[tuple[np.ndarray, np.ndarray]] = []
        self.needed: set[tuple] = set()

    def evaluate(self, steps: int, report: Callable[[int], None] = lambda steps: None) -> Solution:
        """Return the next steps of every chain, leading axis `chain`; its `states` are `Standing`s.

        Runs ahead for later steps go on; whatever ends this early calls off those that have not begun.

        Args:
            steps: how many.
            report: is told how many of them every chain has made since it was told last: in all, `steps`.
        """
        told = self.returned
        self.returned += steps
        rounds, sent = self.workers.counts.rounds, self.sent.copy()
        try:
            while told < self.returned:
                if (made := min(int(self.base.min()), self.returned)) > told:
                    report(made - told)
                    told = made
                    continue
                if self.runs >= LEARN * self.learnt:
                    self.problem, self.learnt = self.problem.learnt(), self.runs
                    self.rolling = roll_out.of(self.problem)
                found = self._roll_out()
                if not self._settle(found):
                    self._send(found)
                    self._wait()
        except BaseException:
            self.close()
            raise
        return self._solution(steps, self.workers.counts.rounds - rounds, self.sent - sent)

    def close(self) -> None:
        """Call off what has not begun."""
        self._call_off(self.flights)
        self.flights = []

    def _roll_out(self) -> Rollout:
        rows = [self._inputs_of(chain) for chain in range(self.chains)]
        inputs = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        arguments: Any = (self.step_sizes, self.standing, self.at_start, inputs, self.rows, self.tolerances)
        return jax.device_get(self.rolling(*arguments))

    def _inputs_of(self, chain: int) -> PyTree:
        """Return the inputs of a chain's next steps; beyond the last they are those of the last, and nothing is run."""
        first, drawn = self.drawn
        last = min(int(self.base.max()) + self.span, self.limit)
        if last > first + jax.tree.leaves(drawn)[0].shape[1]:
            first = int(self.base.min())
            drawn = jax.device_get(self.inputs(first, min(last + self.span, self.limit)))
            self.drawn = first, drawn
        wanted = np.minimum(np.arange(self.base[chain], self.base[chain] + self.span), self.limit - 1) - first
        return jax.tree.map(lambda leaf: leaf[chain, wanted], drawn)

    def _settle(self, found: Rollout) -> bool:
        """Take the steps that are final, and move the window past them; say whether there are any."""
        exact = found.asked.is_exact.reshape(self.chains, -1)
        is_known = (self.standing.is_known > 0) | found.asked_at_start.is_exact.all(-1)
        # The first hole without an answer: there is one behind the last.
        first = np.argmin(np.c_[exact, np.zeros(self.chains, bool)], 1)
        lengths = np.where(is_known, np.minimum(first // self.holes, self.limit - self.base), 0)
        carry: Any = jax.tree.map(np.array, found.start)
        vector: Any = np.array(self.standing.vector)
        for chain, length in enumerate(lengths):
            if length:
                rows = lambda leaf, chain=chain, length=length: leaf[chain, :length]  # noqa: E731
                carries, details, asked = jax.tree.map(rows, (found.carries, found.details, found.asked))
                vectors = self._run_at(found, chain, carries, vector[chain])
                self.settled[chain].append(Settled(carries, vectors, details, asked.distance.max(-1)))
                vector[chain] = vectors[-1]
                if self.keeps_runs:
                    was_run = (rows(self.rows.is_known) > 0) & (asked.distance == 0)
                    self.runs_passed.append((asked.vector[was_run], rows(self.rows.value)[was_run]))
                for old, new in zip(jax.tree.leaves(carry), jax.tree.leaves(carries), strict=True):
                    old[chain] = new[-1]
                for leaf in self.rows:
                    leaf[chain] = np.concatenate([leaf[chain, length:], np.zeros_like(leaf[chain, :length])])
        self.standing = Standing(is_known.astype(np.float32), carry, vector)
        self.base += lengths
        return bool(lengths.any())

    def _run_at(self, found: Any, chain: int, carries: Any, vector: np.ndarray) -> np.ndarray:
        """Return the position at which the model was run for each state: the last that was asked for in its place.

        A state stays where it is until a point that was asked for is accepted, to the last bit.
        """
        points = found.asked.point[chain, : len(carries.position)]
        moved = (points == carries.position[:, None]).all(-1)
        vectors = []
        for step, holes in enumerate(moved):
            if holes.any():
                vector = found.asked.vector[chain, step, np.flatnonzero(holes)[-1]]
            vectors.append(vector)
        return np.stack(vectors)

    def _wanted(self, found: Rollout) -> list[Query]:
        """Return the holes that hold no answer, as many as the workers can take, those first that are needed first."""
        wanted = []
        for chain, base in enumerate(self.base):
            rows: list[tuple[int, Queries, tuple[int, ...]]] = []
            if not self.standing.is_known[chain]:
                rows += [(START, found.asked_at_start, (chain, hole)) for hole in range(self.at_start.value.shape[1])]
            for step in range(min(self.span, self.limit - base)):
                rows += [(base + step, found.asked, (chain, step, hole)) for hole in range(self.holes)]
            missing = [place for place, (_, queries, row) in enumerate(rows) if not queries.is_exact[row]]
            for place in missing:
                step, queries, row = rows[place]
                if place - missing[0] < self.ahead:
                    wanted.append(Query(place - missing[0], (chain, int(step), row[-1]), queries, row))
        # Of two that are as deep, that of the chain that is behind.
        wanted.sort(key=lambda query: (query.depth, self.base[query.place[0]]))
        return wanted[: self.capacity]

    def _send(self, found: Rollout) -> None:
        """Send what is wanted and not on its way, as far as workers are free; call off what is wanted no more."""
        wanted = {query.key: query for query in self._wanted(found)}
        self._call_off([flight for flight in self.flights if flight.query.key not in wanted])
        flying = {flight.query.key for flight in self.flights}
        self.needed = {key for key, query in wanted.items() if not query.depth}
        new = [query for key, query in wanted.items() if key not in flying]
        new = new[: max(0, self.capacity - len(self.flights))]
        if new:
            sent = self.problem.sent(np.stack([self._vector(query) for query in new]))
            positions = [{name: leaf[row] for name, leaf in sent.items()} for row in range(len(new))]
            certain = np.array([not query.depth for query in new])
            began = time.monotonic()
            round = self.workers.submit(positions, self.problem.has_gradient, certain)
            self.lag = time.monotonic() - began
            self.flights += [Flight(query, round, number) for number, query in enumerate(new)]
            np.add.at(self.sent, [query.place[0] for query in new], 1)
            self.runs += len(new)

    def _vector(self, query: Query) -> Any:
        """Return the position at which the model is run for a query: where a chain stands, that from which it came."""
        chain, step, _ = query.place
        return self.standing.vector[chain] if step == START else query.queries.vector[query.row]

    def _wait(self) -> None:
        """Wait until some chain can go on, and a little for others; then put the answers where they belong."""
        began = time.monotonic()
        needed = [flight for flight in self.flights if flight.query.key in self.needed]
        while not any(flight.is_done for flight in needed):
            self.workers.wait()
        took = time.monotonic() - began
        # What a run takes at most: it may have begun before.
        self.seconds = max(took, 0.9 * self.seconds)
        # Those that were sent together began as far apart as sending took, and are heard one after the other.
        ends = time.monotonic() + min(GRACE * self.seconds, LONGEST_GRACE) + 2 * self.lag
        under_way = self.flights
        while (under_way := [row for row in under_way if not row.is_done]) and time.monotonic() < ends:
            self.workers.wait(ends - time.monotonic())
            # Where hundreds return at once, nobody asks hundreds of times.
            time.sleep(min(PAUSE * self.seconds, LONGEST_PAUSE))
        done = [flight for flight in self.flights if flight.is_done]
        self.flights = [flight for flight in self.flights if not flight.is_done]
        # What failed ahead is asked for again; the workers remember it, and raise what it was once it is needed.
        done = [flight for flight in done if not flight.has_failed]
        if done:
            self._put(done)

    def _put(self, flights: list[Flight]) -> None:
        """Put answers into the rows of their holes; a chain may have gone past some."""
        vectors = np.stack([self._vector(flight.query) for flight in flights])
        values = np.asarray([flight.round.logdensity[flight.number] for flight in flights])
        slopes = None
        # Where a guess went astray, what is returned may be beyond all numbers; so it is for the loop.
        with np.errstate(over="ignore"):
            if self.problem.has_gradient:
                rows_of = [(row.round.gradient or {}, row.number) for row in flights]
                slopes = {name: np.stack([leaf[name][row] for leaf, row in rows_of]) for name in self.workers.template}
                slopes = {name: leaf.astype(vectors.dtype) for name, leaf in slopes.items()}
            values = values.astype(vectors.dtype)
        found = self.problem.whole(vectors, values, slopes)
        for flight, value, gradient in zip(flights, *found, strict=True):
            chain, step, hole = flight.query.place
            rows: Any = self.at_start if step == START else self.rows
            row = (chain, hole) if step == START else (chain, step - self.base[chain], hole)
            if step == START or step >= self.base[chain]:
                queries = flight.query.queries
                new = (True, queries.point[flight.query.row], value, gradient, queries.base[flight.query.row])
                for leaf, number in zip(rows, new, strict=True):
                    leaf[row] = number

    def _call_off(self, flights: list[Flight]) -> None:
        """Call off those of these runs that have not begun."""
        for round in {id(flight.round): flight.round for flight in flights}.values():
            which = np.zeros(len(round.done), bool)
            which[[flight.number for flight in flights if flight.round is round]] = True
            gone = round.cancel(which)
            self.flights = [row for row in self.flights if row.round is not round or not gone[row.number]]

    def _solution(self, steps: int, rounds: int, sent: Any) -> Solution:
        """Return the first settled steps of each chain, and keep the rest."""
        chains = []
        for chain, parts in enumerate(self.settled):
            whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
            chains.append(jax.tree.map(lambda leaf: leaf[:steps], whole))
            self.settled[chain] = [jax.tree.map(lambda leaf: leaf[steps:], whole)]
        found: Any = jax.tree.map(lambda *leaves: np.stack(leaves), *chains)
        return Solution(
            states=Standing(jnp.ones((self.chains, steps), jnp.float32), found.carries, found.vectors),
            converged=jnp.ones(self.chains, bool),
            status=jnp.full(self.chains, Status.CONVERGED),
            iterations=jnp.full(self.chains, rounds),
            evaluations=jnp.asarray(sent),
            residual=jnp.asarray(found.residual),
            first_bad_step=jnp.full(self.chains, -1),
            converged_steps=jnp.ones((self.chains, steps), bool),
            finished=jnp.zeros(self.chains, int),
            details=found.details,
        )


def _no_rows(shape: tuple[int, ...], point: Any) -> Rows:
    """Return rows of which nothing is known, as NumPy's arrays, which can be written to."""
    zeros: Any = lambda *axes: np.zeros((*shape, *axes), point.dtype)  # noqa: E731
    return Rows(zeros() != 0, zeros(*point.shape), zeros(), zeros(*point.shape), zeros())
