"""What becomes of a job's due times: the rules by which the scheduler goes, as pure functions of what is kept and of the time.

    values.py     what is kept: jobs, rows of the schedule, changes
    rows.py       from a version of a job to its row in the schedule
    control.py    from a command to the next version of a job, or to runs besides its triggers'
    judge.py      from a row that is due to a run that is emitted, or to the end of one that isn't

The scheduler keeps all this in Cassandra and Kafka, and `dueline.testing` in memory.
"""
