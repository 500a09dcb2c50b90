"""Dueline's library: the words, the addresses, the contracts and the client of a distributed job scheduler.

This package is what other services import, and all that the processes which run users' code import of ours. It knows
Kafka, and nothing of Cassandra or of the processes of the platform. Its modules, from the bottom up:

    errors, clock, states     words without behaviour
    ids, cron, calendars,
    triggers, policies, job   what a job is
    runs, commands            what becomes of it
    address                   where it lives
    contracts, json_form, codec    its form on the wire
    client                    how to ask for it
    progress, registry, builtin,
    attempt, slot             how to perform it
    testing                   all of it in memory, for the tests of those who use it

The names below are loaded when they are first used, so that importing the package is quick in a job's process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dueline.calendars import Calendar
    from dueline.client import AsyncClient, Client
    from dueline.commands import Action, JobFilter
    from dueline.errors import DuelineError, InvalidJob, NotAccepted, NotFound, Unavailable
    from dueline.job import Job, Priority
    from dueline.policies import IfExists, Missed, Overlap, Retry
    from dueline.registry import Failed, Run, executor_class
    from dueline.states import JobState
    from dueline.triggers import Cron, Every, Once

__version__ = "0.1.0"

_HOMES = {
    "Action": "commands",
    "AsyncClient": "client",
    "Calendar": "calendars",
    "Client": "client",
    "DuelineError": "errors",
    "Failed": "registry",
    "InvalidJob": "errors",
    "NotAccepted": "errors",
    "NotFound": "errors",
    "Unavailable": "errors",
    "IfExists": "policies",
    "Job": "job",
    "JobFilter": "commands",
    "JobState": "states",
    "Missed": "policies",
    "Overlap": "policies",
    "Priority": "job",
    "Retry": "policies",
    "Run": "registry",
    "executor_class": "registry",
    "Cron": "triggers",
    "Every": "triggers",
    "Once": "triggers",
}

__all__ = [
    "Action",
    "AsyncClient",
    "Calendar",
    "Client",
    "Cron",
    "DuelineError",
    "Every",
    "Failed",
    "IfExists",
    "InvalidJob",
    "Job",
    "JobFilter",
    "JobState",
    "Missed",
    "NotAccepted",
    "NotFound",
    "Once",
    "Overlap",
    "Priority",
    "Retry",
    "Run",
    "Unavailable",
    "executor_class",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dueline' has no attribute {name!r}")
    value = getattr(import_module(f"dueline.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
