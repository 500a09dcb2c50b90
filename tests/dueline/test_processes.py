"""What the kernel is asked for."""

import os
import signal

import pytest

from dueline.processes import end_descendants


def test_a_child_that_a_thread_has_reaped_meanwhile_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may end while one of its threads still waits for a program."""
    answers = iter([(0, 0)])  # there is a child, and it lives

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        for answer in answers:
            return answer
        raise ChildProcessError

    def kill(pid: int, number: signal.Signals) -> None:
        assert (pid, number) == (-1, signal.SIGKILL)
        raise ProcessLookupError

    monkeypatch.setattr(os, "waitpid", waitpid)
    monkeypatch.setattr(os, "kill", kill)
    end_descendants(alone=True)
    assert next(answers, None) is None
