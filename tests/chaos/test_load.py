"""What the load and the wait for the end do where the platform doesn't answer, or not yet."""

from pathlib import Path
from typing import Any, cast

import pytest

from dueline import AsyncClient
from dueline.errors import NotAccepted, NotFound, Unavailable
from infra.views import Views
from tests.chaos.claims import _is_settled
from tests.chaos.history import SUBMISSIONS, History
from tests.chaos.load import Load, submit


class Away:
    """Of a client of a Kafka that is away, and of views that hold nothing yet."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def submit_job(self, *_: Any, **__: Any) -> str:
        raise self.error

    async def job(self, _: str) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [NotAccepted("job", "no answer"), Unavailable("Kafka does not answer")])
async def test_a_submission_that_kafka_does_not_take_stops_nothing(tmp_path: Path, error: Exception) -> None:
    history = History(tmp_path)
    kind, job = Load(history, 1).next()
    await submit(cast(AsyncClient, Away(error)), history, kind, job)
    assert [line["what"] for line in history.read(SUBMISSIONS)] == ["submitting", "unknown"]


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_an_acknowledged_job_is_waited_for_until_the_views_know_it(acknowledged: bool) -> None:
    views = cast(Views, Away(NotFound("there is no such job")))
    assert await _is_settled(views, "job", acknowledged) is not acknowledged
