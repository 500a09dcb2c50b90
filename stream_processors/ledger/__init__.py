"""The ledger: records what became of the runs, for the views.

    jobs.runs ──► runs, history, the last run of jobs         one Recorder a partition
    jobs.executors ──► executors                              one agent

The write timestamp of a row is the offset of its event, so recording an event again changes nothing, and of two events
of one attempt the later in the log is the one that counts. Of two attempts of a job the later one does. A batch of events is a few writes: one for each minute of
due times and each bucket of jobs among them.

An executor that was stopped and goes on when its shard has another owner may still have something to say. The new
owner's `OwnerStarted` stands before it in the log, and what follows with a lower epoch is passed over; a ledger that begins to
read behind it finds the epoch in the row of the shard's owner.
"""
