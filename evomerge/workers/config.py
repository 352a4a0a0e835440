"""The `workers` section: where candidates are built and scored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from evomerge.registry import Section

GIB = 1 << 30


def _from_auto(value: Any) -> Any:
    return None if value == "auto" else value


NumActors = Annotated[
    Annotated[int, Field(gt=0)] | None,
    BeforeValidator(
        _from_auto,
        json_schema_input_type=Annotated[int, Field(gt=0)] | Literal["auto"] | None,
    ),
]
"""A number; None is what "auto" says."""


class WorkersConfig(Section):
    """The workers.

    Attributes:
        kind: "ray": actors, here or on a cluster; "inline": one worker in the process that
            searches, without Ray, for notebooks, debuggers and small machines.
        address: "local" starts Ray here; else an existing cluster's address, or "auto".
        num_actors: How many actors work. "auto", and nothing, mean as many as the CPUs or GPUs of
            all machines allow, at any time: actors join with a machine that joins the cluster, and
            leave with it.
        num_cpus: How many CPUs each actor has; it runs as many threads.
        num_gpus: GPUs of each actor: a fraction to share one, 2 or more to spread the model over
            them; by default 1 where there is one, else 0.
        pool_gib: GPU memory of each actor for the pool's tensors, on several GPUs the same part
            on each; those that find no room are
            streamed with every build, from pinned memory of the host (each actor's own) through
            room for two tensors of every model. By default all stay there. Of no use on CPUs.
        gpu_memory_gib: Memory of a GPU; by default that of this machine's, where the actors run
            here. What the actors keep on it is refused where it is more.
        ready_timeout_s: How long an actor may take to start, and the search waits for the first.
        job_timeout_s: How long one piece of work may take before its actor is replaced; by default
            ten times as long as the slowest one of as many documents, and never under a minute.
        wait_s: How long a search waits, once it has lost all its actors, before it stops; it can
            be resumed.
        max_attempts: How often an actor may be lost over one piece of work before the candidate is
            recorded as failed.
        statistics_gib: Memory of each actor for what is computed once for the pool: methods'
            statistics (tables), and, where they leave some, tensors that are stored in another
            form. What finds no room is computed again with every candidate; results are the same.
            By default the actors of a machine have a quarter of its memory together, see
            `statistics_budget`.
    """

    kind: Literal["ray", "inline"] = "ray"
    address: str = "local"
    num_actors: NumActors = None
    num_cpus: float = Field(default=1.0, gt=0.0)
    num_gpus: float | None = Field(default=None, ge=0.0)
    pool_gib: float | None = Field(default=None, ge=0.0)
    gpu_memory_gib: float | None = Field(default=None, gt=0.0)
    ready_timeout_s: float = Field(default=600.0, gt=0.0)
    job_timeout_s: float | None = Field(default=None, gt=0.0)
    wait_s: float = Field(default=1800.0, gt=0.0)
    max_attempts: int = Field(default=3, ge=1)
    statistics_gib: float | None = Field(default=None, gt=0.0)

    @model_validator(mode="after")
    def _one_inline(self) -> Self:
        if self.kind == "inline" and (self.num_actors or 1) > 1:
            raise ValueError(
                f"num_actors is {self.num_actors}, and `kind: inline` has one worker; "
                "use `kind: ray`, or leave num_actors out"
            )
        if self.kind == "inline" and self.address != "local":
            raise ValueError(
                f"address is {self.address!r}, and `kind: inline` works in this process; "
                "use `kind: ray`, or leave address out"
            )
        return self

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        num = self.num_gpus or 0.0
        if num > 1.0 and not num.is_integer():
            raise ValueError(
                f"num_gpus is {num:g}, and actors that take more than one GPU take whole ones; "
                f"valid: up to 1, or {math.floor(num) if num >= 2.0 else 2}"
            )
        return self

    @property
    def gpus_of_each(self) -> int:
        """On how many GPUs an actor's model is, where it is on one at all."""
        return max(1, int(self.num_gpus or 1.0))

    @property
    def pool_bytes(self) -> int | None:
        """Of each actor on a GPU, or None where all of the pool stays there."""
        return None if self.pool_gib is None else int(self.pool_gib * GIB)


def num_fitting(resources: Mapping[str, float], num_cpus: float, num_gpus: float) -> int:
    """Actors that find room on a machine, at least one.

    Args:
        resources: Ray's, "CPU" and "GPU"; one that is not named does not limit them.
        num_cpus: Of each actor.
        num_gpus: Of each actor.
    """
    return max(1, _num_fitting(resources, num_cpus, num_gpus))


def num_in_cluster(
    machines: Iterable[Mapping[str, float]], num_cpus: float, num_gpus: float
) -> int:
    """Actors that find room on machines, each whole on one; at least one.

    Args:
        machines: Each one's resources as Ray names them; it has none of what is not named.
        num_cpus: Of each actor.
        num_gpus: Of each actor.
    """
    none = {"CPU": 0.0, "GPU": 0.0}
    return max(1, sum(_num_fitting({**none, **has}, num_cpus, num_gpus) for has in machines))


def _num_fitting(resources: Mapping[str, float], num_cpus: float, num_gpus: float) -> int:
    wanted = {"CPU": num_cpus, "GPU": num_gpus}
    # A tenth goes ten times into one, and 1.0 // 0.1 is 9.
    counts = [int(has / wanted[name] + 1e-9) for name, has in resources.items() if wanted.get(name)]
    return min(counts, default=0)
