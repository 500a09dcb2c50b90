"""What the stages stand on: settings, Kafka, Cassandra, their tables and topics, and their local servers.

    settings.py     where the servers are and where this process keeps its files
    kafka.py        topics and client configurations
    publisher.py    sends records from asyncio; log_reader.py: reads parts of the log by offsets
    statements.py   all CQL, named and described; tables.cql: the tables
    cassandra.py    a session for asyncio
    store.py        Cassandra in the words of the domain: what scheduler and ledger write
    views.py        the read side, with the values of view_values.py; rejects.py: what was refused
    ready.py        how a process says that it serves; watchdog.py: ends it when it hangs; garbage.py: Python's collector
    local/          Kafka, Cassandra and the platform's processes on this machine: make up, down, status

It imports `dueline` and nothing else of this project.
"""
