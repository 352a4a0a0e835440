"""A search from configuration to final table."""

from evomerge.search.api import Result, resume, run, work_on
from evomerge.search.hooks import Hooks, Progress, Quiet
from evomerge.search.inbox import put_into_inbox
from evomerge.search.run import Run, reopen_run, start_run
from evomerge.search.setup import Setup, set_up

__all__ = [
    "Hooks",
    "Progress",
    "Quiet",
    "Result",
    "Run",
    "Setup",
    "put_into_inbox",
    "reopen_run",
    "resume",
    "run",
    "set_up",
    "start_run",
    "work_on",
]
