"""Never two at once, never lost: campaigns of faults, and a checker that judges what came of the jobs meanwhile.

    load.py ──► the platform ──► jobs.py            field.py       servers and processes, two of each
      │            ▲    │           │               faults.py      what is done to them; network.py: cuts
      ▼            │    ▼           ▼               campaign.py    a seeded plan of that: make chaos
    history ◄── faults  claims.py  history          sabotage/      builds with a mistake in them
      └────────────┬────┴───────────┘
                   ▼
                checker

The *history* is written by those who were there: the submitter, the jobs themselves, and whoever injures the platform.
No code of the platform has a part in it. What the platform says of itself, its *claims*, is collected in the end. The
checker gets both, and nothing else.

What it requires
----------------
    lost         every acknowledged job has, for each of its due times, a run that was performed to its end, or was ended
                 by the platform for a reason that such a job gives; and performed runs match due times one to one: each
                 start takes the due time with the earliest deadline of those whose window it lies in
    overlap      between any two executions of one job, the first line of the later lies behind the last line of the earlier.
                 An execution writes lines as long as anything of it lives, its detached grandchildren included
    early        no execution begins before its due time
    unsubmitted  no execution of a job, or for a due time, that nobody asked for
    output       the output that is recorded for an attempt is, byte for byte, that of an execution of this attempt
    view         what the views say of jobs, runs and attempts agrees with the history, and nothing is left open

How it judges: `invalid` if any of these is hurt, however often the rest held. Else `unknown` if no fault cut an execution that
was then repeated, since the campaign proved nothing. Else `valid`. Executions of a run after one that had ended well are
duplicates, which at-least-once allows: they are counted.

One clock for all: CLOCK_BOOTTIME, which goes on while processes are stopped and which nobody can set.
"""
