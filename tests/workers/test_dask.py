"""A Dask cluster of two worker processes on the loopback address, by the standard executor interface."""

import math
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from parsample.workers.errors import NoWorker
from parsample.workers.pool import Workers

distributed = pytest.importorskip("distributed", reason="Dask is not installed: no cluster was tried")
# What Dask warns of is none of our failures.
pytestmark = pytest.mark.filterwarnings("default")

TEMPLATE = {"k": np.zeros(())}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "processes": True,
        "host": "127.0.0.1",
        "dashboard_address": ":0",
    }
    folder = tmp_path_factory.mktemp("dask")
    with (
        distributed.LocalCluster(**options, local_directory=str(folder)) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        yield client


def positions(*numbers: float) -> list[dict[str, np.ndarray]]:
    return [{"k": np.asarray(number, float)} for number in numbers]


def test_runs_are_made_by_both_workers(client: Any) -> None:
    def where(position: dict) -> tuple[float, dict]:
        time.sleep(0.05)
        return float(position["k"]) + os.getpid(), {"k": position["k"] * 0.5}

    workers = Workers(where, TEMPLATE, executor=client.get_executor(), gradient=True)
    assert workers.size == 2
    found = workers.submit(positions(*range(8)), True)
    found.wait_all()
    processes = set(found.logdensity - np.arange(8))
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert found.gradient is not None
    np.testing.assert_array_equal(found.gradient["k"], np.arange(8) / 2)
    assert (workers.counts.runs, workers.counts.rounds) == (8, 1)


def test_a_run_that_raises_or_hangs_is_a_failure(client: Any) -> None:
    def fussy(position: dict) -> float:
        if position["k"] == 1:
            raise ZeroDivisionError("no root")
        if position["k"] == 2:
            time.sleep(3)
        return float(position["k"])

    workers = Workers(fussy, TEMPLATE, executor=client.get_executor(), timeout=1, on_error="reject")
    found = workers.submit(positions(0, 1, 2, 3))
    found.wait_all()
    np.testing.assert_array_equal(found.logdensity, [0, -math.inf, -math.inf, 3])
    assert workers.counts.failures == 2


@pytest.mark.slow
def test_a_worker_that_dies_is_a_failure(client: Any) -> None:
    def deadly(position: dict) -> float:
        if position["k"] == 1:
            os._exit(7)
        return float(position["k"])

    workers = Workers(deadly, TEMPLATE, executor=client.get_executor(), on_error="reject")
    found = workers.submit(positions(0, 1, 2))
    found.wait_all()
    np.testing.assert_array_equal(found.logdensity, [0, -math.inf, 2])
    assert workers.counts.example is not None
    assert "KilledWorker" in workers.counts.example[1]


def test_a_client_that_is_closed_is_noticed(client: Any) -> None:
    with distributed.Client(client.cluster) as other:
        executor = other.get_executor()
    with pytest.raises(ValueError, match="executor is a ClientExecutor that has no worker"):
        Workers(float, TEMPLATE, executor=executor)
    workers = Workers(lambda position: 0.0, TEMPLATE, executor=executor, workers=2)
    with pytest.raises(NoWorker, match=r"the executor takes no more runs .* Keep it open"):
        workers.submit(positions(1)).wait_all()
