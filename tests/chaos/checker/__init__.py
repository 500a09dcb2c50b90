"""The checker: `python -m tests.chaos.checker FOLDER` judges a history and the platform's claims. It has no part in making either.

    past.py       reads a folder into executions, demands and claims
    rules.py      what must hold, each rule a function that yields what hurts it
    figures.py    lateness, duplicates, times to recover
    judgement.py  the verdict

What the rules are, and what the verdicts mean, stands in the docstring of `tests.chaos`.
"""

from tests.chaos.checker.judgement import Judgement, judge

__all__ = ["Judgement", "judge"]
