"""Who builds and scores candidates: Ray actors, or this process."""

from evomerge.workers.config import WorkersConfig
from evomerge.workers.groups import start_group
from evomerge.workers.protocol import Blame, Finished, Job, JobResult, Worker, WorkerGroup
from evomerge.workers.worker import WorkerSpec

__all__ = [
    "Blame",
    "Finished",
    "Job",
    "JobResult",
    "Worker",
    "WorkerGroup",
    "WorkerSpec",
    "WorkersConfig",
    "start_group",
]
