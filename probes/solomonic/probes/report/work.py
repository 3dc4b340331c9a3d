"""Work on several items, one after another or in processes of their own, with news of how far each is."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from joblib.externals.loky import FIRST_COMPLETED, ProcessPoolExecutor, wait
from joblib.externals.loky.process_executor import BrokenProcessPool

__all__ = ["work_on"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Seconds between two looks at what the processes have done.
_PAUSE = 0.2


def work_on(
    items: Sequence[Item],
    task: Callable[[Item, Callable[[str], None]], Result],
    *,
    jobs: int,
    told: Callable[[int, str], None],
) -> list[Result]:
    """``task(item, step)`` for every item, in the order of the items.

    Several items are worked on with one torch thread each, so that no number depends on how many processes there are.
    Whatever stops the work, Ctrl-C or an error in a process, ends all of the processes.

    Parameters
    ----------
    items : sequence
        What is worked on; those that take long had better come first.
    task : callable
        A function of a module, so that it can be sent to a process. It gets the item and a function to call with the
        name of each step that begins.
    jobs : int
        Number of processes; 1 works in this one.
    told : callable
        Called here with the number of the item and the name of the step.

    Returns
    -------
    list
        What the task returned.

    Raises
    ------
    RuntimeError
        If a process died.

    Examples
    --------
    >>> steps = []
    >>> def square(x, step):
    ...     step("square")
    ...     return x * x
    >>> work_on([2, 3], square, jobs=1, told=lambda number, what: steps.append((number, what)))
    [4, 9]
    >>> steps
    [(0, 'square'), (1, 'square')]
    """
    if len(items) == 1:
        return [task(items[0], lambda what: told(0, what))]
    if jobs == 1:
        with _one_thread():
            return [task(item, lambda what, i=i: told(i, what)) for i, item in enumerate(items)]
    with tempfile.TemporaryDirectory() as folder:
        news = [Path(folder) / str(i) for i in range(len(items))]
        executor = ProcessPoolExecutor(max_workers=jobs, initializer=_begin, initargs=(_flushes_denormals(),))
        finished = False
        try:
            found = _collected(executor, items, task, news, told)
            finished = True
        except BrokenProcessPool as error:
            raise RuntimeError(
                "jobs: a process ended before its work was done, most likely for want of memory; try jobs=1"
            ) from error
        finally:  # processes that are done may end by themselves; the others are ended
            executor.shutdown(wait=True, kill_workers=not finished)
        return found


def _collected(
    executor: Any, items: Sequence[Any], task: Any, news: Sequence[Path], told: Callable[[int, str], None]
) -> list[Any]:
    futures = [executor.submit(_tell_and_do, task, *each) for each in zip(items, news, strict=True)]
    heard, pending = [0] * len(items), set(futures)
    while pending:
        done, pending = wait(pending, timeout=_PAUSE, return_when=FIRST_COMPLETED)
        for number, file in enumerate(news):
            lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
            for line in lines[heard[number] :]:
                told(number, line)
            heard[number] = len(lines)
        for future in done:
            future.result()  # raises what was raised there
    return [future.result() for future in futures]


def _tell_and_do(task: Any, item: Any, news: Path) -> Any:
    def step(what: str) -> None:
        with news.open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")

    return task(item, step)


def _begin(flush: bool) -> None:
    """What a process does first: Ctrl-C is the parent's, and arithmetic is as there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    torch.set_flush_denormal(flush)


def _flushes_denormals() -> bool:
    """Whether this process takes denormal numbers for 0; torch sets it, and does not tell."""
    return float(torch.full((), 1e-310, dtype=torch.float64) * 1.0) == 0.0


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
