"""What the stages stand on: settings, Kafka, Cassandra, their tables and topics, and their local servers.

    settings.py     where the servers are and where this process keeps its files
    kafka.py        topics and client configurations
    statements.py   all CQL, named and described; tables.cql: the tables
    store.py        Cassandra in the words of the domain
    views.py        the read side
    local/          Kafka, Cassandra and the platform's processes on this machine: make up, down, status

It imports `dueline` and nothing else of this project.
"""
