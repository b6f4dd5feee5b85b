"""The latency model: what is read from a program, and the arithmetic of its seconds, by cases worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

import parsample as ps
from parsample.engine import latency
from parsample.engine.latency import Device, Kernel, Work

# A loop of three trips, each a product of matrices and a cut out of a long array; then a loop of unknown length, whose
# trips exponentiate; then a branch of which one side does nothing, and a loop that is one function.
PROGRAM = """HloModule jit_f, entry_computation_layout={(f32[4,4]{1,0})->f32[4,4]{1,0}}

%cut (whole: f32[100,4], at: s32[]) -> f32[1,4] {
  %whole = f32[100,4]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = f32[1,4]{1,0} dynamic-slice(%whole, %at, %zero), dynamic_slice_sizes={1,4}
}

%body (state: (s32[], f32[4,4], f32[100,4])) -> (s32[], f32[4,4], f32[100,4]) {
  %state = (s32[], f32[4,4]{1,0}, f32[100,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[4,4]{1,0} get-tuple-element(%state), index=1
  %all = f32[100,4]{1,0} get-tuple-element(%state), index=2
  %squared = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %part = f32[1,4]{1,0} fusion(%all, %i), kind=kLoop, calls=%cut
  ROOT %next = (s32[], f32[4,4]{1,0}, /*index=2*/f32[100,4]{1,0}) tuple(%i, %squared, %all)
}

%going (state: f32[4,4]) -> pred[] {
  ROOT %yes = pred[] constant(true)
}

%turn (x: f32[4,4]) -> f32[4,4] {
  %x.1 = f32[4,4]{1,0} parameter(0)
  ROOT %grown = f32[4,4]{1,0} exponential(%x.1)
}

%nothing (x: f32[4,4]) -> f32[4,4] {
  ROOT %x.2 = f32[4,4]{1,0} parameter(0)
}

%much (x: f32[4,4]) -> f32[4,4] {
  %x.3 = f32[4,4]{1,0} parameter(0)
  ROOT %more = f32[4,4]{1,0} while(%x.3), condition=%going, body=%turn
}

%inner (x: f32[4,4]) -> f32[4,4] {
  %x.4 = f32[4,4]{1,0} parameter(0)
  ROOT %less = f32[4,4]{1,0} negate(%x.4)
}

%function (x: f32[4,4]) -> f32[4,4] {
  %x.5 = f32[4,4]{1,0} parameter(0)
  ROOT %w = f32[4,4]{1,0} while(%x.5), condition=%going, body=%inner, backend_config={"known_trip_count":{"n":"5"}}
}

ENTRY %main (p: f32[4,4], rows: f32[100,4], b: pred[]) -> f32[4,4] {
  %p = f32[4,4]{1,0} parameter(0)
  %rows = f32[100,4]{1,0} parameter(1)
  %b = pred[] parameter(2)
  %start = s32[] constant(0)
  %begun = (s32[], f32[4,4]{1,0}, f32[100,4]{1,0}) tuple(%start, %p, %rows)
  %loop = (s32[], f32[4,4]{1,0}, f32[100,4]{1,0}) while(%begun), condition=%going, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %got = f32[4,4]{1,0} get-tuple-element(%loop), index=1
  %settled = f32[4,4]{1,0} while(%got), condition=%going, body=%turn
  %left = f32[4,4]{1,0} conditional(%b, %settled, %settled), branch_computations={%much, %nothing}
  ROOT %end = f32[4,4]{1,0} call(%left), to_apply=%function, frontend_attributes={xla_cpu_small_call="true"}
}
"""  # noqa: E501


def test_a_program_is_read_as_it_would_be_by_hand() -> None:
    program = latency.read(PROGRAM)
    assert set(program.once.kernels) == {
        # 2 * 4 * 4 * 4 operations; reads a matrix of 64 bytes, which is both factors, and writes one.
        Kernel(times=3, flops=0, products=128, bytes=128, is_small=False),
        # A row of 16 bytes out of 1,600, and the number of it; four numbers are moved.
        Kernel(times=3, flops=4, products=0, bytes=16 + 4 + 16, is_small=False),
        Kernel(times=5, flops=16, products=0, bytes=128, is_small=True),
    }
    grown = Kernel(times=1, flops=16 * latency.TRANSCENDENTAL, products=0, bytes=128, is_small=False)
    assert program.trip.kernels == (grown,)


def test_a_kernel_takes_what_is_slowest_about_it() -> None:
    device = Device(kernel=1e-6, small=1e-8, flops=1e9, products=1e10, bandwidth=1e8, source="made up")
    work = Work(
        (
            Kernel(10, 500, 0, 40, False),  # 0.5 us and 0.4 us: starting it, 1 us, ten times
            Kernel(2, 4000, 10_000, 0, False),  # 4 us and 1 us one after the other, twice
            Kernel(1, 0, 0, 700, False),  # 7 us
            Kernel(100, 1, 0, 1, True),  # 10 ns, a hundred times
        )
    )
    assert work.seconds(device) == pytest.approx(10e-6 + 10e-6 + 7e-6 + 1e-6, rel=1e-12)
    # Starting: 20e-7 flops and 16e-7 bytes of four chains are above it now; small ones move 4 bytes in 40 ns.
    assert work.of_chains(4).seconds(device) == pytest.approx(10 * 2e-6 + 2 * 20e-6 + 28e-6 + 100 * 4e-8, rel=1e-12)
    assert work.launches == work.of_chains(4).launches == 113


def test_what_is_cut_off_is_not_computed() -> None:
    """XLA fuses the double of a whole array into the kernel that takes a row of it, and computes that row."""
    text = PROGRAM.replace(
        "ROOT %row = f32[1,4]{1,0} dynamic-slice(%whole,",
        "%double = f32[100,4]{1,0} add(%whole, %whole)\n  ROOT %row = f32[1,4]{1,0} dynamic-slice(%double,",
    )
    cut = Kernel(times=3, flops=4 + 4, products=0, bytes=16 + 4 + 16, is_small=False)
    assert any(row == cut for row in latency.read(text).once.kernels)


def test_loops_of_a_compiled_program_count_as_often_as_they_run() -> None:
    def run(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 7, lambda _, x: jnp.tanh(x @ x), x)

    compiled = jax.jit(run).lower(jnp.ones((64, 64))).compile()
    kernels = latency.read(compiled.as_text() or "").once.kernels
    assert sum(row.times * row.products for row in kernels) == 7 * 2 * 64**3
    assert sum(row.times * row.flops for row in kernels) >= 7 * 64**2 * latency.TRANSCENDENTAL


def test_an_accelerator_s_program_has_its_scan() -> None:
    """A diagonal system of 512 steps: a loop over them on a CPU; three levels of blocks of eight elsewhere."""

    def solve(diagonals: jax.Array, offsets: jax.Array) -> jax.Array:
        return ps.solve_lds(ps.matrices.Diagonal(diagonals), offsets, jnp.zeros(2))

    given = jnp.ones((512, 2)), jnp.ones((512, 2))
    here = latency.read(jax.jit(solve).lower(*given).compile().as_text() or "")
    assert here.once.launches >= 512
    assert latency.of_accelerator(solve, *given).once.launches < 100


def test_a_device_that_nothing_is_known_of_is_refused() -> None:
    with pytest.raises(ValueError, match=r"device is 'h10', expected one of cpu, a100, h100, h200\. Did you mean"):
        latency.find("h10")
    assert latency.find("a100").kernel == pytest.approx(226e-6 / 94)


def test_the_processor_at_hand_has_numbers_above_zero() -> None:
    assert all(number > 0 for number in latency.find("cpu")[:-1])
