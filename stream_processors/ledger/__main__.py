"""python -m stream_processors.ledger"""

from infra.settings import load_settings
from stream_processors.ledger.app import Ledger

if __name__ == "__main__":
    Ledger(load_settings()).run()
