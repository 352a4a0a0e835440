"""A backend in a process of its own behind a pipe, as an inference server would be.

Its weights lie in shared memory: whoever merges writes them there, and the process runs them where
they lie.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from evomerge.backends import HuggingFaceBackend
from evomerge.backends.config import Batching, EngineConfig
from evomerge.errors import CandidateError
from evomerge.models.build import empty_model
from evomerge.pool import Pool, PoolConfig, load_tokenizer, open_pool
from evomerge.recipe import Recipe
from evomerge.score.backend import Continuation, Generation, LogLikelihood, Prompt

PLAIN = Batching(way="plain", tokens=512, cached=8192, reads=4096)


class PipedEngine(EngineConfig):
    """Its settings."""

    kind: Literal["piped"] = "piped"


class PipedBackend:
    """The `Backend` of such a process."""

    def __init__(self, _config: PipedEngine, pool: Pool, *_: Any) -> None:
        shapes = empty_model(pool, torch.device("cpu")).state_dict()
        names = {t.data_ptr(): name for name, t in reversed(list(shapes.items()))}
        # Tied tensors lie in one place.
        self._memory = {
            name: SharedMemory(create=True, size=shapes[name].nbytes) for name in names.values()
        }
        self._parameters = {
            name: viewed(self._memory[names[tensor.data_ptr()]], tensor)
            for name, tensor in shapes.items()
        }
        self._pipe, theirs = get_context("spawn").Pipe()
        places = {name: memory.name for name, memory in self._memory.items()}
        self.process = get_context("spawn").Process(
            target=serve, args=(theirs, pool.resolved(), places), daemon=True
        )
        self.process.start()
        self.max_length = int(self._ask("max_length"))
        self.close = weakref.finalize(self, _end, self._pipe, self.process, self._memory)

    def parameters(self) -> Mapping[str, Tensor]:
        return self._parameters

    def loaded(self, recipe: Recipe) -> None:
        self._ask("loaded", recipe.to_json())

    def log_likelihoods(self, requests: Sequence[Continuation]) -> PipedRequests:
        return PipedRequests(self, *self._ask("log_likelihoods", list(requests)))

    def generations(self, requests: Sequence[Prompt]) -> PipedRequests:
        return PipedRequests(self, *self._ask("generations", list(requests)))

    def _ask(self, *message: Any) -> Any:
        self._pipe.send(message)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


class PipedRequests:
    """Requests that the process has made ready."""

    def __init__(self, backend: PipedBackend, number: int, num_tokens: list[int]) -> None:
        self._backend = backend
        self._number = number
        self.num_tokens = num_tokens

    def answer(self) -> list[Any]:
        answers: list[LogLikelihood | Generation] = self._backend._ask("answer", self._number)
        return answers


def viewed(memory: SharedMemory, like: Tensor) -> Tensor:
    """A tensor in shared memory."""
    return torch.frombuffer(memory.buf, dtype=like.dtype, count=like.numel()).view(like.shape)


def _end(pipe: Connection, process: Any, memory: Mapping[str, SharedMemory]) -> None:
    pipe.close()
    process.join(10)
    process.kill()
    for held in memory.values():
        # The tensors may still be held; the memory goes with the last of them.
        held.unlink()


def serve(pipe: Connection, pool_config: PoolConfig, places: Mapping[str, str]) -> None:
    """The process: a model whose parameters lie in the parent's shared memory."""
    torch.set_num_threads(1)
    pool = open_pool(pool_config, Path())
    model = empty_model(pool, torch.device("cpu"))
    memory = {name: SharedMemory(name=place) for name, place in places.items()}
    for name, held in memory.items():
        owner, _, last = name.rpartition(".")
        parameter = getattr(model.get_submodule(owner), last)
        parameter.data = viewed(held, parameter)
    model.tie_weights()
    backend = HuggingFaceBackend(model, load_tokenizer(pool), PLAIN)
    prepared: list[Any] = []
    while True:
        try:
            kind, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            if kind == "answer":
                pipe.send(prepared[arguments[0]].answer())
            elif kind == "loaded":
                # What a server keeps of the weights before would be forgotten here.
                pipe.send(None)
            elif kind == "max_length":
                pipe.send(backend.max_length)
            else:
                made = getattr(backend, kind)(arguments[0])
                prepared.append(made)
                pipe.send((len(prepared) - 1, list(made.num_tokens)))
        except CandidateError as error:
            pipe.send(error)
