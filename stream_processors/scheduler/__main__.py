"""python -m stream_processors.scheduler"""

from infra.settings import load_settings
from stream_processors.scheduler.app import Scheduler

if __name__ == "__main__":
    Scheduler(load_settings()).run()
