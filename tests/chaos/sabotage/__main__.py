"""python -m tests.chaos.sabotage MISTAKE[+MISTAKE …] MODULE [ARGUMENT …]"""

import runpy
import sys

from tests.chaos.sabotage.executors import MISTAKES as OF_EXECUTORS
from tests.chaos.sabotage.schedulers import MISTAKES as OF_SCHEDULERS

if __name__ == "__main__":
    names, module, *arguments = sys.argv[1:]
    mistakes = {**OF_EXECUTORS, **OF_SCHEDULERS}
    for name in names.split("+"):
        mistakes[name]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
