"""The file of finished runs: nothing that it holds is lost, and nothing that it should not hold is believed."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parsample.workers.memory import Found, Memory

IDENTITY = {"function": "solve", "position": {"k": ["<f8", [2]]}}


def key(*numbers: float) -> bytes:
    return np.array(numbers).tobytes()


def opened(path: Path | None) -> Memory:
    memory = Memory(path)
    memory.bind(IDENTITY, 16, 2)
    return memory


RUNS = {
    key(0.1, 0.2): Found(-1.5, np.array([3.0, 4.0])),
    key(-0.0, 0.2): Found(-np.inf),
    key(0.0, 0.2): Found(7.25),
    key(5e-324, 1.0): Found(-np.inf, None, is_rejected=True),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    memory = opened(tmp_path / "runs")
    for place, found in RUNS.items():
        memory.put(place, found)
    memory.close()
    return tmp_path / "runs"


def assert_same(memory: Memory, places: list[bytes]) -> None:
    assert [place for place, _ in memory.items()] == places
    for place in places:
        found, wanted = memory.get(place), RUNS[place]
        assert found is not None
        assert (found.value, found.is_rejected) == (wanted.value, wanted.is_rejected)
        assert (found.gradient is None) == (wanted.gradient is None)
        if wanted.gradient is not None:
            np.testing.assert_array_equal(found.gradient, wanted.gradient)


def test_runs_come_back_by_the_bits_of_their_position(path: Path) -> None:
    memory = opened(path)
    assert_same(memory, list(RUNS))
    assert memory.get(key(0.1, 0.3)) is None
    assert memory.damaged == 0


def test_every_place_at_which_a_file_may_be_torn(path: Path) -> None:
    content, size = path.read_bytes(), 1 + 16 + 8 * 3 + 4
    head = len(content) - 4 * size
    for length in range(len(content)):
        path.write_bytes(content[:length])
        memory = opened(path)
        assert_same(memory, list(RUNS)[: max(0, length - head) // size])
        assert memory.damaged == (length > head and (length - head) % size > 0)
        memory.put(key(9.0, 9.0), Found(1.0))
        memory.close()
        again = opened(path)
        assert len(again) == max(0, length - head) // size + 1
        assert again.damaged == 0
        again.close()


def test_a_record_that_does_not_fit_its_checksum_is_left_out(path: Path) -> None:
    content, size = bytearray(path.read_bytes()), 1 + 16 + 8 * 3 + 4
    content[len(content) - 3 * size + 20] ^= 1
    path.write_bytes(bytes(content))
    memory = opened(path)
    places = list(RUNS)
    assert_same(memory, [places[0], *places[2:]])
    assert memory.damaged == 1


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({**IDENTITY, "function": "shoot"}, "another model: its function is 'solve', and now 'shoot'"),
        ({**IDENTITY, "position": {}}, "another model: its position is "),
    ],
)
def test_the_runs_of_another_model_are_refused(path: Path, other: dict, text: str) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"'{path}' holds the runs of {text}"):
        Memory(path).bind(other, 16, 2)
    assert path.read_bytes() == before
    memory = opened(None)
    with pytest.raises(ValueError, match=f"this memory holds the runs of {text}"):
        memory.bind(other, 16, 2)


@pytest.mark.parametrize("content", [b"something else\n" * 9, b"parsample runs 1\nno json\n"])
def test_a_file_that_is_no_memory_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes.txt' is no file of finished runs, or its head is damaged"):
        opened(path)
    assert path.read_bytes() == content


def test_a_process_that_is_killed_loses_what_it_was_at_and_no_more(tmp_path: Path) -> None:
    program = f"""
import os, signal, time
import numpy as np
from parsample.workers.memory import Memory
from parsample.workers.pool import Workers

def simulate(position):
    if position["k"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)  # not so quick that runs are handed over together
    return float(position["k"])

memory = Memory({str(tmp_path / "runs")!r})
workers = Workers(simulate, {{"k": np.zeros(())}}, executor="threads", workers=1, memory=memory)
workers.submit([{{"k": np.asarray(number)}} for number in range(6)]).wait_all()
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    memory = Memory(tmp_path / "runs")
    identity = {"function": "simulate", "gradient": False, "position": {"k": ["<f8", []]}}
    memory.bind(identity, 8, 1)
    assert sorted(found.value for _, found in memory.items()) == [0, 1, 2]
