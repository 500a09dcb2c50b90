"""The ways in: how people and programs ask for jobs, and see what became of them.

    cli/        the command `dueline`: submit, look, start the processes of the platform
    forms.py    the JSON form of what the views show, the same from every way in
    demo.py     `make demo`: the main job on real servers, which checks its own results

A way in adds nothing to what a job is. It turns what it is given into a `dueline.Job` and hands that to `dueline.Client`,
so whatever is accepted here would also be accepted from any other Kafka client, and it returns when Kafka has
acknowledged. What it shows comes from `infra.views`, which reads Cassandra. So there are two kinds of need:

    submitting      Kafka, and the dependencies of the base install
    looking         Cassandra, and the extra `platform`

The stages behind (`stream_processors`, `consumers`) are never imported: they are started as processes of their own.
"""
