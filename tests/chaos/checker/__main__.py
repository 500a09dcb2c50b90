"""python -m tests.chaos.checker FOLDER"""

import json
import sys
from pathlib import Path

from tests.chaos.checker import judge

if __name__ == "__main__":
    judgement = judge(Path(sys.argv[1]))
    print(json.dumps(judgement.as_json(), indent=2))
    sys.exit(judgement.exit_status)
