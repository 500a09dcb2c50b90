"""The command `dueline`.

    group.py     the command itself, its addresses and its errors
    submit.py    dueline submit
    calendar.py  dueline calendar
    control.py   dueline cancel | pause | resume | run-now | change | backfill | retry
    crontab.py   dueline crontab import
    look.py      dueline jobs | job | runs | output | failed | executors | rejected
    start.py     dueline scheduler | ledger | executor
    job_options.py   the fields of a job as options
    fields.py    instants, durations and parameters as people type them
    tables.py    tables for people

A command imports what it needs when it is called, so that `dueline submit` is quick and works without the extra
`platform`. What goes wrong is one line on stderr and exit status 1; a wrong option is exit status 2.
"""

from producers.cli.group import main

__all__ = ["main"]
