"""Worker threads that hand back results in the order of the work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Runs shards side by side; a bounded number of results waits at any time."""

    def __init__(
        self, pool: ThreadPoolExecutor, count: int, device: torch.device
    ) -> None:
        self._pool, self._count, self._device = pool, count, device

    def map(self, work: Callable[[T], R], over: Iterable[T]) -> Iterator[R]:
        """Yield ``work(x)`` for each x, in order; one worker is who asks."""
        waiting: deque[Future[R]] = deque()

        def there(x: T) -> R:
            # not once for the thread: what a thread keeps of it until its end may
            # outlive the interpreter, which then aborts
            with _on(self._device):
                return work(x)

        if self._count == 1:
            yield from map(there, over)
            return
        for x in over:
            waiting.append(self._pool.submit(there, x))
            if len(waiting) > self._count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _on(device: torch.device) -> AbstractContextManager[object]:
    """The device as the default, at no cost where it is: a mode slows every call."""
    return nullcontext() if device == torch.get_default_device() else device


@contextmanager
def workers(count: int, device: torch.device) -> Iterator[Workers]:
    """Open ``count`` worker threads on a device.

    Each computes with one thread: the order in which a number is summed must not
    depend on how many cores there are.
    """
    before = torch.get_num_threads()

    torch.set_num_threads(1)
    one = (1,)
    with ThreadPoolExecutor(count, "privfed", torch.set_num_threads, one) as pool:
        try:
            with _on(device):
                yield Workers(pool, count, device)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(before)
