"""Work in processes: in order, with news, with one thread each, and without anything left when it stops."""

import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from solomonic.probes.report.work import work_on


def slow_square(x: int, step) -> tuple[int, int, int, bool]:
    step("begin")
    time.sleep(0.3 / x)  # the first item is the last one done
    step("end")
    flushed = float(torch.full((), 1e-310, dtype=torch.float64) * 1.0) == 0.0
    return x * x, os.getpid(), torch.get_num_threads(), flushed


def fail(x: int, step, *, how: str, note: Path) -> int:
    if x == 1:
        while not (note.exists() and note.read_text()):
            time.sleep(0.05)
        if how == "die":
            os._exit(1)
        raise KeyError("no such thing")
    note.write_text(str(os.getpid()))
    time.sleep(600)
    return x


@pytest.mark.parametrize(("jobs", "flush"), [(1, False), (1, True), (2, True)])
def test_results_and_news_are_in_order_and_arithmetic_is_the_same(jobs, flush):
    heard: list[tuple[int, str]] = []
    torch.set_num_threads(2)
    torch.set_flush_denormal(flush)
    try:
        done = work_on([1, 2, 3], slow_square, jobs=jobs, told=lambda number, what: heard.append((number, what)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(1)
    assert [each[0] for each in done] == [1, 4, 9]
    assert (len({each[1] for each in done} - {os.getpid()}) > 0) == (jobs == 2)
    assert {each[2:] for each in done} == {(1, flush)}
    for number in range(3):
        assert [what for who, what in heard if who == number] == ["begin", "end"]


@pytest.mark.parametrize(
    ("how", "error", "words"), [("raise", KeyError, "no such thing"), ("die", RuntimeError, "jobs")]
)
def test_a_process_that_fails_stops_the_others(tmp_path, how, error, words):
    note = tmp_path / "pid"
    with pytest.raises(error, match=words):
        work_on([1, 2], partial(fail, how=how, note=note), jobs=2, told=lambda number, what: None)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_an_interruption_stops_the_processes():
    def stop(number: int, what: str) -> None:
        raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        work_on([1, 1], slow_square, jobs=2, told=lambda number, what: (seen.append(what), stop(number, what)))
    assert seen == ["begin"]
