"""How fast, how late and at what cost: `make bench`, on servers and processes of its own.

    make bench                                    all of it
    make bench ONLY=drain ROUNDS=5 SEED=7         one of them
    make bench ONLY=drain OPTIONS="--jobs 20000"  in another size; python -m tests.bench drain --help has them all
    make bench QUICK=1                            a few hundred jobs: shows that it works, measures nothing

    session.py      one call: seed, rounds, the platform to measure, where results go
    bed.py          servers and processes, with the settings that `make up` gives them
    submit.py       submits the jobs of a plan              processes of their own,
    stream.py       submits jobs steadily                   which helper.py starts
    fill.py         stores jobs without the way through Kafka, where others than they are measured
    made_jobs.py    the jobs, from their seed
    meter.py        CPU and memory of every process, from /proc
    runs_log.py     when all is recorded, and what became of each job
    storage.py      what lies on the servers' disks
    drains.py, streams.py, windows.py, figures.py     what several benchmarks have in common
    benches/        the benchmarks
    machine.py      the first line of results: what they hold for
    page.py, plots.py    the page

Results are JSON lines, on the standard output and in `build/bench/results.jsonl`: the machine first; then each round (with
`round`); and behind the rounds of a kind their median under the same names (with `rounds`, and `spread`: the least and the
greatest of each).

How it is measured
------------------
- Jobs do nothing, so the figures are the platform's own. All runs on one machine, servers and submitters included.
- The submitter is a process of its own. Its clock begins when it is connected and told to begin. CPU time is what
  /proc says of every process with all below it, the servers' included, from that moment to the end of the clock.
  Interpreters' and servers' starts are not in it; what runs while idle is.
- A drain ends when Cassandra has the last event of every partition of `jobs.runs`. While the clock runs the benchmark asks
  Kafka for the ends of those partitions, twenty times a second, and reads no record; `cores_busy_measuring` is what that cost.
- Lateness is taken afterwards from the events themselves: the start that the executor wrote down minus the due time.
- Acknowledgements of a stream are timed from the instant at which a job was to be submitted, not from when its submitter
  came to it. A stream's figures are of the time in which jobs fall due at the full rate, its submissions going on.
- Before the first round a drain of some ten thousand jobs warms up the servers: cold, their compilers double the cost of a job.
"""
