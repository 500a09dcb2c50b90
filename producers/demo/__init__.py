"""`make demo`: the main job, end to end, on real servers, checking its own results.

    scenario.py    what is submitted, and what has to become of it
    watch.py       asks the views until all has ended, and shows it
    __main__.py    starts everything, submits, reports, stops everything

It has a data folder (`demo` in DUELINE_DATA) and ports of its own, so it runs beside a platform in daily use. Each time
it starts from nothing; its outputs and logs stay.
"""
