"""Kafka, Cassandra and the platform's processes on this machine, for daily work, the demo and the tests.

    python -m infra.local up | down | status | servers-up | servers-down

The servers are the real ones: their jars come from Maven Central, by the `pom.xml` of each folder, into a cache that all
data folders share; each runs as one JVM with the configuration beside its pom. Nothing is installed, and all listen on
127.0.0.1 only.

    checks.py       what the machine must have: Java, Maven, free ports, free disk; a sentence for each that it lacks
    jars.py         fetches a server's jars, once
    background.py   a detached process: pid file, log file, signals that reach no stranger
    servers.py      KafkaServer and CassandraServer
    supervisor.py   starts one process of the platform again whenever it exits
    platform.py     scheduler, ledger and executor under their supervisors

All that is kept lies in the data folder (`DUELINE_DATA`):

    kafka/ cassandra/    the servers' data and the configuration they were started with
    logs/                one log file a process, named in every message about it
    run/                 pid files, and the ready files of the platform's processes
    outputs/             what runs wrote
"""
