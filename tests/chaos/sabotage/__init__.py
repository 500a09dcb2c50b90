"""Builds of the platform with one mistake each, which prove the checker: it must find every one of them out.

    python -m tests.chaos.sabotage MISTAKE MODULE [ARGUMENT …]

is `python -m MODULE [ARGUMENT …]` with the mistake in it: the real module, with the one name replaced that the mistake is
about. Each mistake is one that somebody could have made in good faith, and that no test of calm days would find.

    mistake                     in           shows when                                                            as
    commit-before-output        executors    one is killed while it performs what it has committed                 lost
    output-not-atomic           executors    one is killed after it has reported outputs                           output
    no-lease-wait               executors    one is stopped, where the group's session is shorter than its lease   overlap
    no-guard                    executors    one is stopped while its slots go on                                  overlap
    acknowledge-before-store    schedulers   one is killed as soon as it has committed                             lost
    cursor-without-epoch        schedulers   one that had been stopped stores over what its successor has stored   lost
    wheel-kept                  schedulers   one that had been stopped gets its shards back from its successor     lost

`executors.py` and `schedulers.py` have the mistakes, `scenarios.py` the injuries at which they show, and `stage.py` what those
need of the platform.
"""
