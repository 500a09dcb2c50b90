"""What a valid value looks like, for hypothesis: a test says `st.from_type(Job)`."""

from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st

from dueline.calendars import Calendar
from dueline.codec import EPOCH_END
from dueline.commands import Action, BulkCommand, CancelOrder, ControlCommand, JobFilter, RetryCommand
from dueline.ids import IdGenerator
from dueline.job import Job, Priority
from dueline.policies import IfExists, Missed, Overlap, Retry
from dueline.progress import progress_text
from dueline.runs import Heartbeat, Output, OwnerStarted, ReadyRun, RunEvent
from dueline.states import AttemptState, JobState
from dueline.triggers import MOMENT_MAX_MS, Cron, Every, Once

settings.register_profile("dueline", deadline=None)  # the suite shares its machine with two servers
settings.load_profile("dueline")

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia")
EXPRESSIONS = ("* * * * *", "*/15 * * * *", "0 2 * * *", "30 1 * * 1-5", "0 0 1,15 * 5", "@hourly", "@weekly")

_generator = IdGenerator()
instants = st.integers(0, MOMENT_MAX_MS)
longs = st.integers(0, 2**62)
epochs = st.integers(0, EPOCH_END - 1)
ints = st.integers(0, 2**31 - 1)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001 (the zone follows)
    lambda moment: moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
)
windows = st.tuples(st.none() | moments, st.none() | moments).map(
    lambda ends: sorted(ends) if None not in ends else ends  # type: ignore[type-var]
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,40}", fullmatch=True)
ids = names | instants.map(_generator.next)
texts = st.text(max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
params = st.dictionaries(texts, json_values, max_size=4)
progresses = st.just("") | json_values.map(progress_text)

jitters = (st.just(0) | st.integers(0, 86_400_000)).map(lambda ms: timedelta(milliseconds=ms))
calendar_names = st.sampled_from(("holidays-de", "holidays-us", "stock-taking"))
#: What both kinds of recurring triggers end with.
others = st.builds(
    lambda window, jitter, excluded: (*window, jitter, tuple(excluded)),
    windows,
    jitters,
    st.lists(calendar_names, max_size=2, unique=True),
)
onces = moments.map(Once)


def intervals(ms_min: int) -> st.SearchStrategy[Every]:
    lengths = st.integers(ms_min, 10 * 365 * 86_400_000).map(lambda ms: timedelta(milliseconds=ms))
    return st.builds(lambda length, rest: Every(length, *rest), lengths, others)


everies = intervals(1000)
crons = st.builds(
    lambda expression, zone, rest: Cron(expression, zone, *rest),
    st.sampled_from(EXPRESSIONS),
    st.sampled_from(ZONES),
    others,
)
calendars = st.builds(
    Calendar,
    name=names,
    dates=st.frozensets(st.dates(), max_size=20),
    time_zone=st.none() | st.sampled_from(ZONES),
)
pauses_s = st.integers(0, 86_400_000).map(lambda ms: ms / 1000)
retries = st.builds(
    Retry,
    max_attempts=st.integers(1, 100),
    backoff_s=pauses_s,
    factor=st.floats(1, 100),
    step_s=pauses_s,
    backoff_max_s=pauses_s,
    pauses_s=st.lists(pauses_s, max_size=4).map(tuple),
    jitter=st.floats(0, 1),
    give_up_on=st.lists(st.sampled_from(("ValueError", "timeout", "_Mine")), max_size=2).map(tuple),
)
limits_s = st.none() | st.integers(1, 300_000).map(lambda ms: ms / 1000)
jobs = st.builds(
    Job,
    executor_class=st.text(min_size=1, max_size=40),
    id=st.none() | ids,
    name=texts,
    priority=st.sampled_from(Priority),
    params=params,
    # Three that are due every three seconds are together due once a second at most, wherever they start.
    triggers=everies.map(lambda every: (every,))
    | st.lists(onces | intervals(3000) | crons, max_size=3).map(tuple),
    retry=retries,
    timeout_s=st.integers(1, 300_000).map(lambda ms: ms / 1000),
    missed=st.sampled_from(Missed),
    catch_up_s=pauses_s,
    overlap=st.none() | st.sampled_from(Overlap),
    start_within_s=limits_s,
    end_within_s=limits_s,
    if_exists=st.sampled_from(IfExists),
)
ready_runs = st.builds(
    ReadyRun,
    job_id=ids,
    due_ms=instants,
    emit_ms=instants,
    attempt=st.integers(2, 100),
    version=longs,
    executor_class=texts,
    priority=st.sampled_from(Priority),
    params=params,
    timeout_ms=st.integers(1, 300_000),
    retry=retries,
    name=texts,
    recurring=st.booleans(),
    overlap=st.sampled_from(Overlap),
    start_by_ms=st.none() | instants,
    end_by_ms=st.none() | instants,
    progress=progresses,
)
some_ms = st.none() | longs
states = st.sampled_from(AttemptState)

st.register_type_strategy(Once, onces)
st.register_type_strategy(Every, everies)
st.register_type_strategy(Cron, crons)
st.register_type_strategy(Calendar, calendars)
st.register_type_strategy(Job, jobs)
st.register_type_strategy(Retry, retries)
st.register_type_strategy(ReadyRun, ready_runs)
st.register_type_strategy(
    RetryCommand, ready_runs.map(lambda run: RetryCommand(follows=run.attempt - 1, run=run))
)
plain_actions = st.sampled_from(sorted(set(Action) - {Action.CHANGE, Action.BACKFILL, Action.RETRY}))
st.register_type_strategy(
    ControlCommand,
    st.builds(ControlCommand, job_id=ids, action=plain_actions, note=texts)
    | st.builds(
        ControlCommand, job_id=ids, action=st.just(Action.CHANGE), fields=params.filter(bool), note=texts
    )
    | st.builds(
        lambda job_id, due_ms: ControlCommand(
            job_id=job_id, action=Action.RETRY, start_ms=due_ms, end_ms=due_ms
        ),
        ids,
        instants,
    )
    | st.builds(
        lambda job_id, span: ControlCommand(
            job_id=job_id, action=Action.BACKFILL, start_ms=min(span), end_ms=max(span)
        ),
        ids,
        st.tuples(instants, instants),
    ),
)
filters = st.tuples(st.none() | names, st.none() | st.sampled_from(JobState), st.none() | st.just("") | names)
st.register_type_strategy(
    JobFilter,
    filters.filter(lambda given: given != (None, None, None)).map(
        lambda given: JobFilter(executor_class=given[0], state=given[1], prefix=given[2])
    ),
)
st.register_type_strategy(
    BulkCommand,
    st.builds(BulkCommand, matching=st.from_type(JobFilter), action=plain_actions, note=texts)
    | st.builds(
        BulkCommand,
        matching=st.from_type(JobFilter),
        action=st.just(Action.CHANGE),
        fields=params.filter(bool),
        note=texts,
    ),
)
st.register_type_strategy(
    CancelOrder,
    st.builds(
        CancelOrder,
        job_id=ids,
        version=longs,
        reason=texts,
        ready=st.fixed_dictionaries(dict.fromkeys(Priority, longs)),
    ),
)
st.register_type_strategy(
    RunEvent,
    st.builds(
        RunEvent,
        job_id=ids,
        due_ms=longs,
        attempt=ints,
        version=longs,
        state=states,
        at_ms=longs,
        executor_class=texts,
        priority=st.sampled_from(Priority),
        recurring=st.booleans(),
        executor=texts,
        epoch=epochs,
        started_ms=some_ms,
        ended_ms=some_ms,
        retry_ms=some_ms,
        reason=texts,
        exit_status=st.none() | st.integers(-64, 255),
        output=texts,
        progress=progresses,
    ),
)
st.register_type_strategy(
    OwnerStarted, st.builds(OwnerStarted, shard=ints, epoch=epochs, executor=texts, at_ms=longs)
)
st.register_type_strategy(
    Heartbeat,
    st.builds(
        Heartbeat,
        executor=texts,
        host=texts,
        pid=ints,
        started_ms=longs,
        at_ms=longs,
        slots=ints,
        running=ints,
        classes=st.lists(texts, max_size=3).map(tuple),
        alive=st.booleans(),
    ),
)
st.register_type_strategy(
    Output,
    st.builds(
        Output,
        run_id=texts,
        attempt=ints,
        state=states,
        started_ms=longs,
        ended_ms=longs,
        exit_status=st.none() | st.integers(-64, 255),
        result=texts,
        error=texts,
        stdout=st.binary(max_size=40),
        stderr=st.binary(max_size=40),
        bytes_dropped=longs,
    ),
)
