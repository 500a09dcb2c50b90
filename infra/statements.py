"""All CQL of the platform, named and described. The tables are in tables.cql.

Each statement is prepared once a session and is idempotent: it may be sent again after a time-out.
"""

from enum import StrEnum


class Statement(StrEnum):
    """Names of tables are qualified by the session's keyspace."""

    # -- scheduler: jobs and schedule ------------------------------------------------------------------------------

    #: A job as accepted. The write timestamp is its version + 1, so a replay writes the same cell.
    SAVE_JOB = """
        INSERT INTO jobs (bucket, shard, job_id, version, accepted_ms, definition, state, reason)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"""
    #: One that was changed since. A job as accepted has nothing in the columns that are more here.
    SAVE_CHANGED_JOB = """
        INSERT INTO jobs (bucket, shard, job_id, version, accepted_ms, definition, state, reason,
            since_ms, defined_ms, cancelled)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"""
    #: What the scheduler knows of jobs of one bucket.
    FIND_JOBS = """
        SELECT job_id, version, accepted_ms, definition, state, reason, since_ms, defined_ms, cancelled FROM jobs
        WHERE bucket = ? AND shard = ? AND job_id IN ?"""
    #: That a bucket of generated ids is not empty.
    SAVE_BUCKET = "INSERT INTO buckets (day, bucket) VALUES (?, ?)"
    #: An attempt to come.
    SAVE_ROW = """
        INSERT INTO schedule (minute, shard, emit_ms, run_id, attempt, submission, priority, run, definition)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
    #: The next rows of a bucket behind a position, in the order of emission.
    READ_ROWS = """
        SELECT emit_ms, run_id, attempt, submission, priority, run, definition FROM schedule
        WHERE minute = ? AND shard = ? AND (emit_ms, run_id, attempt, submission) > (?, ?, ?, ?) LIMIT ?"""
    #: A bucket that has been emitted, whole.
    DELETE_BUCKET = "DELETE FROM schedule WHERE minute = ? AND shard = ?"
    #: That rows of the schedule count no more.
    SAVE_CHANGE = """
        INSERT INTO changes (day, shard, until_ms, job_id, version, since_ms, cancels, reason)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
    #: The changes of a day that concern rows from one emit time on, and before another.
    READ_CHANGES = """
        SELECT until_ms, job_id, version, since_ms, cancels, reason FROM changes
        WHERE day = ? AND shard = ? AND until_ms >= ? AND until_ms < ?"""
    #: A day whose rows have been emitted, whole.
    DELETE_CHANGES = "DELETE FROM changes WHERE day = ? AND shard = ?"

    #: A calendar, by its record's offset + 1 as the write timestamp.
    SAVE_CALENDAR = "INSERT INTO calendars (name, calendar) VALUES (?, ?) USING TIMESTAMP ?"
    READ_CALENDARS = "SELECT name, calendar FROM calendars"

    # -- scheduler: the shard row ----------------------------------------------------------------------------------

    READ_SHARD = """
        SELECT epoch, owner, cursor_ms, submissions, ready_high, ready_normal, ready_low FROM shards WHERE shard = ?"""
    #: The first owner of a shard.
    CREATE_SHARD = """
        INSERT INTO shards (shard, epoch, owner, cursor_ms, submissions, ready_high, ready_normal, ready_low)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS"""
    #: The next owner of a shard, if nobody else has taken it meanwhile.
    TAKE_SHARD = "UPDATE shards SET epoch = ?, owner = ? WHERE shard = ? IF epoch = ?"
    #: How far the owner is, if it still is the owner.
    SAVE_SHARD = """
        UPDATE shards SET cursor_ms = ?, submissions = ?, ready_high = ?, ready_normal = ?, ready_low = ?
        WHERE shard = ? IF epoch = ? AND owner = ?"""
    #: That its owner has given it up, and does nothing for it any more.
    RELEASE_SHARD = "UPDATE shards SET owner = '' WHERE shard = ? IF epoch = ? AND owner = ?"

    # -- ledger ----------------------------------------------------------------------------------------------------

    #: How an attempt stands, by its event's offset + 1 as the write timestamp.
    SAVE_RUN = """
        INSERT INTO runs (minute, shard, run_id, attempt, state, event)
        VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"""
    #: How a job's latest attempt stands; the write timestamp follows from due time, attempt and state.
    SAVE_LAST_RUN = """
        UPDATE jobs USING TIMESTAMP ? SET last_run = ? WHERE bucket = ? AND shard = ? AND job_id = ?"""
    #: That a recurring job has attempts for a due time.
    SAVE_HISTORY = "INSERT INTO history (job_id, period, due_ms) VALUES (?, ?, ?)"
    #: That a run has ended without success.
    SAVE_FAILURE = "INSERT INTO failures (day, shard, ended_ms, run_id) VALUES (?, ?, ?, ?)"
    #: Who owns a shard's runs, by the offset of its OwnerStarted + 1 as the write timestamp.
    SAVE_OWNER = "INSERT INTO owners (shard, epoch, executor) VALUES (?, ?, ?) USING TIMESTAMP ?"
    FIND_OWNER = "SELECT epoch FROM owners WHERE shard = ?"
    #: The latest heartbeat of a process.
    SAVE_HEARTBEAT = """
        INSERT INTO executors (role, executor, host, pid, started_ms, at_ms, slots, running, classes, alive)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"""

    # -- views -----------------------------------------------------------------------------------------------------

    #: Everything about one job.
    VIEW_JOB = """
        SELECT job_id, version, accepted_ms, definition, state, reason, since_ms, last_run FROM jobs
        WHERE bucket = ? AND shard = ? AND job_id = ?"""
    #: The jobs of a bucket and shard, newest first, behind a job id.
    VIEW_JOBS = """
        SELECT job_id, version, accepted_ms, definition, state, reason, since_ms, last_run FROM jobs
        WHERE bucket = ? AND shard = ? AND job_id < ? LIMIT ?"""
    #: When the named jobs of a bucket came, shard by shard: all of them, as they are in no order by time.
    VIEW_NAMED = "SELECT job_id, accepted_ms FROM jobs WHERE bucket = ? AND shard IN ?"
    #: The buckets of a day that are not empty, newest first.
    VIEW_BUCKETS = "SELECT bucket FROM buckets WHERE day = ? AND bucket <= ?"
    #: The days that have buckets, in no order.
    VIEW_DAYS = "SELECT DISTINCT day FROM buckets"
    #: The attempts of one run.
    VIEW_ATTEMPTS = "SELECT event FROM runs WHERE minute = ? AND shard = ? AND run_id = ?"
    #: The due times of a recurring job in a period, latest first, before a due time.
    VIEW_HISTORY = "SELECT due_ms FROM history WHERE job_id = ? AND period = ? AND due_ms < ? LIMIT ?"
    #: The runs of a day that ended without success, latest first, before a place in that order.
    VIEW_FAILURES = """
        SELECT ended_ms, run_id FROM failures
        WHERE day = ? AND shard = ? AND (ended_ms, run_id) < (?, ?) LIMIT ?"""
    #: The processes of a role.
    VIEW_EXECUTORS = """
        SELECT executor, host, pid, started_ms, at_ms, slots, running, classes, alive FROM executors WHERE role = ?"""
