"""The scheduler: accepts submissions, keeps them in the schedule, and emits what is due.

    jobs.submissions ──► Acceptance ──► Gathering ──► schedule, jobs    rows are durable before a submission is acknowledged
                             │     └──► changes, jobs.control           of commands; cancels are for the executors
                             ▼
                           Wheel ──► Judge ──► jobs.ready.*         a heap of the rows that are due soon, and what becomes of them
                             ▲          └────► jobs.runs            of those that end without being emitted
                             └── schedule, page by page, ahead of the time

One `Shard` a partition ties them together; its row in Cassandra says who owns it and how far it is.

    received.py      records as they come, and as they leave for other shards or as refused
    acceptance.py    from a batch of records to what they ask for, and to what is refused
    gathering.py     what plain submissions ask for, and what follows upon runs, until it is worth a write
    bulk.py          from a command for many jobs to a command for each
    wheel.py         what to emit when, and what of it is acknowledged: no I/O
    shard.py         the worker of a partition: takes over, reads ahead, turns the wheel, stores the row
    trimming.py      what the topics keep, and for how long
    broker_clock.py  a time that no wrong clock of this machine can carry beyond the brokers'

Words. The *cursor* is a time: every row of the shard with an earlier emit time is acknowledged by a ready topic. The
*position* is how far the schedule has been read into the heap. A row is *late* when its emit time lies before a cursor
that may have been stored: nobody will look for it in the schedule again, so it is not written there but emitted at once, and
its submission counts as satisfied only when its ready record is acknowledged. Jobs that are due when they come are late: they
are emitted while their rows still gather, and held in the wheel's account until those are stored.

Invariant A: a submission's offset is committed only when what it asks for is durable: its row at or above the cursor,
its ready record, its rejection, or its passing on. And only when the shard row says so too: a commit beyond the stored
offset would hide from the next owner what it has to read again.
Invariant B: a stored job never depends on anything in memory. What a wheel holds can be had again from its shard row:

    rows with an emit time at or above the cursor        may not have been emitted
    submissions at or above the stored offset            may not be satisfied
    ready records at or above the stored offsets         tell which of those were emitted

What an owner found emitted by those before it has to be found by the next one too: it stores no higher ready offsets until
the submissions that were there at its take-over are satisfied, and its cursor is beyond all that it found.

The three are stored together, by a write that fails if another process has taken the shard meanwhile (its epoch has
grown). A wheel emits only while its last store is younger than `STORE_TRUSTED_S`, so a process that has lost its shard
without knowing stops by itself; a new owner waits for as long, unless the row says that it was released.

The rules by which jobs are changed and rows are judged are in `dueline.scheduling`, which knows nothing of shards. This is what
makes them hold in spite of crashes. A change is durable, and known to the judge, before the job's row has its new version; and a
job's row gets a new version only when all earlier records that name the job are satisfied *and stored as such* (`Asked.coming`),
since they could not be read again as what they were. A cancel is passed on to the executors only when all that was emitted
before is acknowledged, with the ends of the ready partitions. And an owner that takes over rehearses the changes that the log
holds and that it has still to read, before its wheel turns: it knows of a cancel before it emits what has become due since.

What fails:
- Cassandra: nothing is accepted and, after `STORE_TRUSTED_S`, nothing emitted. Both go on when it is back.
- Kafka: what is not acknowledged is sent again. A record that was acknowledged unseen may then be there twice, under
  one key (run id, attempt), by which an executor knows it.
- the process: its partitions move when the group's session ends. The next owner reads the row, takes the next epoch,
  reads the ready partitions from the stored offsets, and emits what it does not find there.
"""
