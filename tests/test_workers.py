"""Worker threads: order, bounds, failures."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from privfed.workers import workers

CPU = torch.device("cpu")


def test_results_come_in_the_order_of_the_work() -> None:
    def slow_first(x: int) -> int:
        time.sleep(0.02 if x == 0 else 0)
        return x * x

    with workers(3, CPU) as crew:
        assert list(crew.map(slow_first, range(10))) == [x * x for x in range(10)]


def test_work_is_taken_only_as_results_are_used() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for x in range(100):
            taken.append(x)
            yield x

    with workers(2, CPU) as crew:
        results = crew.map(lambda x: x, items())
        next(results)
        assert len(taken) <= 4  # never the whole round at once


def test_every_worker_computes_with_one_thread_and_the_caller_gets_its_own_back() -> (
    None
):
    before = torch.get_num_threads()
    with workers(2, CPU) as crew:
        assert set(crew.map(lambda _: torch.get_num_threads(), range(4))) == {1}
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_new_tensors_are_born_on_the_device() -> None:
    with workers(1, torch.device("meta")) as crew:
        [kind] = crew.map(lambda _: torch.zeros(1).device.type, range(1))
    assert kind == "meta"
    assert torch.zeros(1).device.type == "cpu"


def test_a_failure_reaches_the_caller_and_ends_the_threads() -> None:
    def fails(x: int) -> int:
        if x == 3:
            raise ZeroDivisionError("in a worker")
        return x

    count = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="in a worker"), workers(2, CPU) as crew:
        list(crew.map(fails, range(50)))
    assert threading.active_count() == count
