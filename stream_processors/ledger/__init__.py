"""The ledger: records what became of the runs, for the views.

    jobs.runs ──► runs, history, the last run of jobs         one Recorder a partition
    jobs.executors ──► executors                              one agent

The write timestamp of a row is the offset of its event, so recording an event again changes nothing, and of two events
of one attempt the later in the log is the one that counts. A batch of events is a few writes: one for each minute of
due times and each bucket of jobs among them.
"""
