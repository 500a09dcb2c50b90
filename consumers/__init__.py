"""The consumers: executors, which perform the runs that are ready.

    ready topics ──► executor ──► guard ──► slots       processes: one executor, its guard, its slots
                        │
                        └──► output store (files), then jobs.runs

An executor takes ready runs from Kafka and hands them to its slots, long-lived processes that perform users' code
(`dueline.slot`). The guard stands between the two, so that whatever becomes of the executor, no run outlives it:
`consumers.guard` and `consumers.cage` say how, `consumers.slots` is the executor's view of it.

Of several executors each performs the runs of some shards. `consumers.lease` is the page that says why no shard's runs are
ever performed by two at a time; `consumers.intake` commits offsets, and with them extends the lease;
`consumers.take_over` is how a shard's next executor begins, `consumers.positions` what it is left to begin with, and
`consumers.findings` what it learns of the runs there: which have ended, and which may have taken their executor with them.

What becomes of a run before its turn is for `consumers.backlog` (whose turn it is, and what overlaps) and `consumers.cancels` (whose job
was cancelled); what becomes of it then, for `consumers.performer`; what is told of it meanwhile, for `consumers.bulletin`.
"""
