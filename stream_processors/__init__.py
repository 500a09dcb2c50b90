"""The two processes between Kafka and Cassandra: the scheduler and the ledger, both Faust apps.

    partitions.py   what both are: a worker for each partition of one keyed topic, and offsets committed behind it
    feed.py         how messages get from Faust's consumer to the workers
    scheduler/      accepts submissions, stores them, and emits what is due
    ledger/         records what became of the runs

Faust does the group membership, the assignment of partitions and the fetching. It does not decide what is committed:
its acknowledgements let a message that was skipped during a rebalance pass for one that was processed, and then commit
beyond messages that were not. So the topics are read with acknowledgements off, each worker says up to which offset
all is satisfied, and that is what is committed.
"""
