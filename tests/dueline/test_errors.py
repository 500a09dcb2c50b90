"""Errors as other processes get them: whole."""

import pickle

import pytest

from dueline.errors import DuelineError, InvalidJob, NotAccepted, NotFound, SomeNotAccepted


@pytest.mark.parametrize(
    "error",
    [
        InvalidJob("retry.jitter", "must be a number"),
        NotAccepted("job-1", "no answer"),
        SomeNotAccepted(sent=["a", "b"], accepted=["a"], unacknowledged=["b"], why="no answer"),
        NotFound("no job"),
    ],
)
def test_an_error_survives_the_way_to_another_process(error: DuelineError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))
