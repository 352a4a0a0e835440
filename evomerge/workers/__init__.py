"""The Ray actors, and the group of them that survives their deaths."""

from evomerge.workers.config import WorkersConfig
from evomerge.workers.protocol import Job, JobResult, Worker

__all__ = ["Job", "JobResult", "Worker", "WorkersConfig"]
