"""An engine of another package: each token follows from the one before it alone."""

from typing import Literal

import torch

from evomerge.backends import EngineConfig
from evomerge.score.backend import Generation, LogLikelihood


class BigramConfig(EngineConfig):
    kind: Literal["bigram"] = "bigram"


class Bigram:
    max_length = 64

    def __init__(self, config, pool, device, tokenizer, batching):
        self._shapes, self._tokenizer = pool.layout.shapes, tokenizer
        self._tensors = {
            name: torch.zeros(self._shapes[name])
            for name in ("model.embed_tokens.weight", "lm_head.weight")
        }

    def parameters(self):
        return self._tensors

    def loaded(self, recipe):
        embedding, head = self._tensors.values()
        self._table = (embedding @ head.T).log_softmax(dim=-1)

    def log_likelihoods(self, requests):
        return Prepared([len(request.targets) for request in requests], self._read, requests)

    def generations(self, prompts):
        return Prepared([1 for _ in prompts], self._write, prompts)

    def _read(self, request):
        rows = self._table[[request.context[-1], *request.targets[:-1]]]
        targets = torch.tensor(request.targets)
        value = rows.gather(1, targets[:, None]).double().sum()
        return LogLikelihood(float(value), bool((rows.argmax(dim=-1) == targets).all()))

    def _write(self, prompt):
        tokens = [prompt.tokens[-1]]
        for _ in range(prompt.max_new_tokens):
            tokens.append(int(self._table[tokens[-1]].argmax()))
        return Generation(self._tokenizer.decode(tokens[1:]), tuple(tokens[1:]), True)


class Prepared:
    def __init__(self, num_tokens, ask, requests):
        self.num_tokens, self._ask, self._requests = num_tokens, ask, requests

    def answer(self):
        return [self._ask(request) for request in self._requests]


def register(backends):
    backends.add(BigramConfig, Bigram)
