"""How long a compiled program takes, on a device that is there or on one that is not: a prediction, never a timing.

A kernel takes as long as the slowest of three things: starting it, its arithmetic, its traffic with the memory; a
program takes the sum over its kernels, as often as its loops come to them. What XLA has fused is read from the text of
the compiled program, so that a prediction takes a program and no run.
"""

import functools
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array

from parsample.engine.names import unknown


class Device(NamedTuple):
    """What a device takes.

    Attributes:
        kernel: seconds to start a kernel, the trip of a loop around it included.
        small: the same in a loop that XLA compiles into one function, as it does on a CPU with what is small.
        flops: operations on single numbers a second, float32.
        products: floating-point operations a second in products of matrices, float32.
        bandwidth: bytes a second between processor and memory.
        source: where these numbers come from.
    """

    kernel: float
    small: float
    flops: float
    products: float
    bandwidth: float
    source: str


# The one number that is fitted: a published loop, 100,000 steps of HMC with 8 leapfrog steps on the banana, takes
# 22.6 s on an A100 (parallel-mcmc, figures/hmc_rosenbrock_timing.json): 226 microseconds a step, of which the program
# here has 94 kernels.
_LAUNCH = 22.6 / 100_000 / 94
_SOURCE = "the peak rates of the data sheet, and what a kernel of a published loop takes"
# NVIDIA's data sheets of the A100 80GB SXM, H100 SXM and H200 SXM. float32 without tensor cores, as the matmul
# precision "highest" takes it, which the front doors set.
DEVICES = {
    "a100": Device(_LAUNCH, _LAUNCH, 19.5e12, 19.5e12, 2.039e12, _SOURCE),
    "h100": Device(_LAUNCH, _LAUNCH, 67e12, 67e12, 3.35e12, _SOURCE),
    "h200": Device(_LAUNCH, _LAUNCH, 67e12, 67e12, 4.8e12, _SOURCE),
}
# The processor at hand, whose numbers are measured when they are asked for.
CPU = "cpu"


def find(name: str) -> Device:
    """Return what is known of a device.

    Raises:
        ValueError: there is none of that name.

    Cost: for "cpu" five small programs, once in a process.
    """
    if name == CPU:
        return calibrated()
    if name not in DEVICES:
        raise unknown("device", name, [CPU, *DEVICES])
    return DEVICES[name]


@functools.cache
def calibrated() -> Device:
    """Measure what the processor at hand takes, with what else it has to do, by programs each slow in one way."""
    small, row = jnp.full(8, 0.1), jnp.full(2048, 0.1)
    # As states are: many steps of few numbers.
    rows = jnp.full((8192, 8), 0.1)

    def repeated(step: Callable[[Array], Array], times: int) -> Callable[[Any], Any]:
        return lambda start: jax.lax.fori_loop(0, times, lambda _, x: jax.tree.map(step, x), start)

    def each(function: Callable, given: Any, count: Callable[[Kernel], float]) -> float:
        program = jax.jit(function).lower(given).compile()
        kernels = read(program.as_text() or "").once.kernels
        return _median_seconds(program, given) / sum(row.times * count(row) for row in kernels)

    chain = lambda x: 0.5 * x + 0.1 * x[::-1] * jnp.sum(x)  # noqa: E731
    curve = lambda x: jnp.exp(jnp.log(x + 1) - x.sum(1, keepdims=True)) + x[:, ::-1] * x  # noqa: E731
    return Device(
        kernel=each(repeated(chain, 5000), row, lambda row: 1),
        small=each(repeated(chain, 100_000), small, lambda row: 1),
        flops=1 / each(repeated(curve, 50), rows, lambda row: row.flops),
        products=1 / each(repeated(lambda x: 0.01 * (x @ x), 50), jnp.full((256, 256), 0.01), lambda row: row.products),
        bandwidth=1 / each(repeated(lambda x: x[::-1] + 1, 500), rows, lambda row: row.bytes),
        source="measured here, just now",
    )


def _median_seconds(program: Callable, *given: Any) -> float:
    """Return what a program takes, the median of five times."""
    jax.block_until_ready(program(*given))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(program(*given))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def of_accelerator(function: Callable, *given: Any) -> "Program":
    """Return the work of a function on an accelerator that need not be there.

    It is lowered as for one, whose scans are others than a CPU's, and compiled by what is at hand, for what gets fused.

    Args:
        function: of pytrees of arrays and of what is fixed.
        *given: its arguments.

    Cost: compiles the function; nothing is run.
    """
    arrays, fixed = eqx.partition(given, eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)

    def flat(*leaves: Array) -> list[Array]:
        found = function(*eqx.combine(jax.tree.unflatten(tree, leaves), fixed))
        return jax.tree.leaves(eqx.filter(found, eqx.is_array))

    # A TPU's programs are those that call no library of a GPU, which is not here.
    checks = [export.DisabledSafetyCheck.platform()]
    exported = export.export(jax.jit(flat), platforms=["tpu"], disabled_checks=checks)(*leaves)
    return read(jax.jit(exported.call).lower(*leaves).compile().as_text() or "")


def at_hand() -> str:
    """Return the name of JAX's device, "cpu" or one in `DEVICES`; "" where it is another."""
    if jax.default_backend() == "cpu":
        return CPU
    kind = jax.devices()[0].device_kind.lower()
    return next((name for name in DEVICES if name in kind), "")


class Kernel(NamedTuple):
    """A kernel of a program.

    Attributes:
        times: how often it runs.
        flops: operations on single numbers each time; a function such as exp counts as `TRANSCENDENTAL`.
        products: floating-point operations in products of matrices.
        bytes: read and written.
        is_small: whether it is part of a loop that is compiled into one function.
    """

    times: float
    flops: float
    products: float
    bytes: float
    is_small: bool


class Work(NamedTuple):
    """What a program does, kernel by kernel."""

    kernels: tuple[Kernel, ...] = ()

    @property
    def launches(self) -> float:
        """How many kernels are started."""
        return float(sum(row.times for row in self.kernels))

    def of_chains(self, number: int) -> "Work":
        """Return the same for many chains at once: as many kernels, each with the work of all."""
        return Work(
            tuple(
                row._replace(flops=number * row.flops, products=number * row.products, bytes=number * row.bytes)
                for row in self.kernels
            )
        )

    def seconds(self, device: Device) -> float:
        """Return what it is predicted to take on a device."""

        def each(row: Kernel) -> float:
            arithmetic = row.flops / device.flops + row.products / device.products
            return max(device.small if row.is_small else device.kernel, arithmetic, row.bytes / device.bandwidth)

        return sum(row.times * each(row) for row in self.kernels)


class Program(NamedTuple):
    """The work of a program.

    Attributes:
        once: what it does once, loops of known length included.
        trip: what every trip of a loop of unknown length takes, as are the iterations of an evaluation.
    """

    once: Work
    trip: Work


# Instructions that are no kernel: names for what is there already.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
# Operations of a function such as the exponential, by instructions of its polynomial.
TRANSCENDENTAL = 16.0
_TRANSCENDENTAL = {
    "exponential", "exponential-minus-one", "log", "log-plus-one", "logistic", "tanh", "power", "sine", "cosine", "tan",
    "atan2", "erf", "cbrt",
}  # fmt: skip
# Instructions that compute nothing. Others that move numbers about count as one operation for each: they do on a CPU,
# and elsewhere the traffic counts for more.
_NOTHING = _FREE | {"broadcast", "reshape", "iota", "bitcast-convert", "copy-start", "copy-done"}
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s64": 8, "u64": 8, "f64": 8, "c64": 8}


class _Instruction(NamedTuple):
    name: str
    shape: str
    code: str
    operands: tuple[str, ...]
    rest: str

    def numbers(self) -> float:
        """Return how many numbers it gives."""
        return sum(count for count, _ in _arrays(self.shape))

    def bytes(self) -> float:
        return sum(count * size for count, size in _arrays(self.shape))

    def called(self, *keys: str) -> list[str]:
        """Return the computations that an attribute names."""
        found = re.search(rf"\b(?:{'|'.join(keys)})=\{{?([^}}=]*)", self.rest)
        return re.findall(r"%([\w.-]+)", found[1]) if found else []


_Computations = Mapping[str, Mapping[str, _Instruction]]


def _arrays(shape: str) -> Iterable[tuple[float, int]]:
    """Yield how many numbers each array of a shape has, and the bytes of one."""
    for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        count = 1.0
        for dim in filter(None, dims.split(",")):
            count *= int(dim)
        yield count, _SIZES.get(kind, 4)


def _parse(text: str) -> tuple[_Computations, str]:
    """Return the computations of a program as XLA prints it, by name, and the name of the one that is entered."""
    found: dict[str, dict[str, _Instruction]] = {}
    entry, current = "", ""
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.-]+) .*\{$", line):
            current = head[2]
            found[current] = {}
            entry = current if head[1] else entry
        elif row := re.match(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(([^)]*)\)(.*)", line):
            name, shape, code, operands, rest = row.groups()
            names = tuple(re.findall(r"%([\w.-]+)", operands))
            found[current][name] = _Instruction(name, shape, code, names, rest)
    return found, entry


def read(text: str) -> Program:
    """Read the work of a program from its text, as `jax.stages.Compiled.as_text` has it.

    What only some runs come to, as does the loop that finishes what has not converged, is not counted: of a branch the
    side with fewer kernels is. A loop of unknown length inside such a loop counts as one trip.
    """
    computations, entry = _parse(text)
    unknown_length: list[tuple[str, bool]] = []
    once = _walk(computations, entry, 1.0, False, unknown_length)
    within: list[tuple[str, bool]] = []
    trip = [row for body, small in unknown_length for row in _walk(computations, body, 1.0, small, within)]
    trip += [row for body, small in within for row in _walk(computations, body, 1.0, small, [])]
    return Program(Work(tuple(once)), Work(tuple(trip)))


def _walk(
    computations: _Computations, name: str, times: float, small: bool, unknown_length: list[tuple[str, bool]]
) -> list[Kernel]:
    """Return the kernels of a computation that runs `times` times, and note the loops of unknown length that it has."""
    kernels: list[Kernel] = []
    for row in computations[name].values():
        if row.code == "while":
            (body,) = row.called("body")
            known = re.search(r'known_trip_count":\{"n":"(\d+)"', row.rest)
            if known is None:
                unknown_length.append((body, small))
            else:
                kernels += _walk(computations, body, times * int(known[1]), small, unknown_length)
        elif row.code == "call":
            (body,) = row.called("to_apply")
            kernels += _walk(computations, body, times, small or "small_call" in row.rest, unknown_length)
        elif row.code == "conditional":
            branches = [*row.called("branch_computations", "true_computation"), *row.called("false_computation")]
            sides = [_walk(computations, branch, times, small, []) for branch in branches]
            kernels += min(sides, key=lambda side: Work(tuple(side)).launches)
        elif row.code not in _FREE:
            flops, products = _operations(computations, name, row)
            kernels.append(Kernel(times, flops, products, _traffic(computations, name, row), small))
    return kernels


def _operations(computations: _Computations, inside: str, row: _Instruction) -> tuple[float, float]:
    """Return the operations of an instruction on single numbers, and those in products of matrices."""
    if row.code == "fusion":
        (name,) = row.called("calls")
        body = computations[name]
        shares = _shares(body)
        parts = [(shares[part.name], _operations(computations, name, part)) for part in body.values()]
        return sum(share * flops for share, (flops, _) in parts), sum(
            share * products for share, (_, products) in parts
        )
    size = row.numbers()
    if row.code == "dot":
        left = re.search(r"\[([\d,]*)\]", computations[inside][row.operands[0]].shape)
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", row.rest)
        if left is not None and contracted is not None:
            sizes = left[1].split(",")
            for dim in filter(None, contracted[1].split(",")):
                size *= int(sizes[int(dim)])
        return 0.0, 2 * size
    if row.code in ("reduce", "reduce-window"):
        return max(size, computations[inside][row.operands[0]].numbers()), 0.0
    if row.code == "dynamic-update-slice":
        return computations[inside][row.operands[1]].numbers(), 0.0
    return (0.0 if row.code in _NOTHING else size * (TRANSCENDENTAL if row.code in _TRANSCENDENTAL else 1)), 0.0


def _shares(body: Mapping[str, _Instruction]) -> dict[str, float]:
    """Return of each instruction of a kernel the share that is computed: what nothing takes is left out.

    Of what is cut from an array that piece alone is, and an array that a piece is put into stays where it is.
    """
    shares = dict.fromkeys(body, 0.0)
    shares[list(body)[-1]] = 1.0
    for row in reversed(list(body.values())):
        for operand in dict.fromkeys(row.operands):
            share, first = shares[row.name], operand == row.operands[0]
            if first and row.code in ("slice", "dynamic-slice", "gather"):
                share *= row.numbers() / max(1.0, body[operand].numbers())
                # Other pieces are other numbers.
                shares[operand] = min(1.0, shares[operand] + share)
            elif not (first and row.code == "dynamic-update-slice"):
                shares[operand] = max(shares[operand], share)
    return shares


def _traffic(computations: _Computations, inside: str, row: _Instruction) -> float:
    """Return the bytes that a kernel reads and writes."""
    if row.code == "fusion":
        (name,) = row.called("calls")
        body = computations[name]
    else:
        operands = [computations[inside][operand]._replace(code="parameter", operands=()) for operand in row.operands]
        body = {part.name: part for part in [*operands, row]}
    shares = _shares(body)
    read = sum(shares[part.name] * part.bytes() for part in body.values() if part.code == "parameter")
    end = list(body.values())[-1]
    ends = [body[name] for name in end.operands] if end.code == "tuple" else [end]
    return read + sum(_written(part, body) for part in ends)


def _written(part: _Instruction, body: Mapping[str, _Instruction]) -> float:
    """Return the bytes that are written of a result."""
    while part.code == "bitcast" and part.operands[0] in body:
        part = body[part.operands[0]]
    return body[part.operands[1]].bytes() if part.code == "dynamic-update-slice" else part.bytes()
