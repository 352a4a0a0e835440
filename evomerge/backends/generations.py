"""Texts written behind prompts by a transformers model: what prompts share is run once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evomerge.backends.batches import (
    TRUNK_REMEDY,
    Limits,
    batches,
    halved_once,
    told_out_of_memory,
)
from evomerge.backends.endings import Endings
from evomerge.backends.passes import Inputs, Runner, inputs_of, require_finite
from evomerge.backends.plan import LEAST_SAVED, plan_trees
from evomerge.backends.settings import Settings, choose
from evomerge.backends.trees import Branch, Read, Row, above_of, held_at, tokens_of
from evomerge.score.backend import Generation, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evomerge.backends.caches import GrowingCache, KeysValues

LEAST_LEAVING = 0.125
"""Share of a batch that has ended before it leaves: the others are moved together."""


@dataclass(eq=False)
class _Answer:
    """An answer that is being written.

    Attributes:
        number: Its own.
        prompt: Behind what.
        tokens: So far.
        uniforms: One for each token, where tokens are drawn.
        ids: Shape [1, T]: the prompt and room for the answer, where something reads them.
        processors: What changes its logits.
        is_cut: Whether it has ended by its length.
    """

    number: int
    prompt: Prompt
    tokens: list[int] = field(default_factory=list)
    uniforms: Any = None
    processors: Any = None
    ids: Tensor | None = None
    is_cut: bool = False


@dataclass
class _Batch:
    """Prompts of a branch whose answers are written together.

    Attributes:
        rows: The prompts' rows, the longest first.
        answers: By row: the numbers of its answers.
        most_new: Tokens of an answer at most.
    """

    rows: list[Row]
    answers: list[list[int]]
    most_new: int


class PreparedGenerations:
    """Prompts of one kind of settings, made ready for one model.

    Args:
        runner: The model; its way has trees.
        tokenizer: Of the answers.
        settings: What `requests` have.
        requests: What is asked.
        limits: What a batch may take.
        least_saved: See `plan_trees`.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        requests: Sequence[Prompt],
        limits: Limits,
        least_saved: int = LEAST_SAVED,
    ) -> None:
        self._runner = runner
        self._tokenizer = tokenizer
        self._settings = settings
        self._limits = limits
        distinct = {_key(prompt, settings): prompt for prompt in requests}
        self._prompts = list(distinct.values())
        numbers = {key: number for number, key in enumerate(distinct)}
        self._numbers = [numbers[_key(prompt, settings)] for prompt in requests]
        self._endings = {prompt.stops: Endings(tokenizer, prompt.stops) for prompt in self._prompts}
        texts = {prompt.tokens: place for place, prompt in reversed(list(enumerate(requests)))}
        # The last token of each stands alone, so that each has a row, which may see trunks.
        ordered = sorted(texts, key=lambda tokens: texts[tokens])
        reads = [
            Read((*tokens[:-1], -1 - place), len(tokens) - 1)
            for place, tokens in enumerate(ordered)
        ]
        self._branches = plan_trees(reads, 0, least_saved)
        self.num_tokens = [0] * len(requests)
        for tokens, count in zip(ordered, tokens_of(self._branches, len(reads)), strict=True):
            self.num_tokens[texts[tokens]] = count
        for branch in self._branches:
            for row in branch.rows:
                row.tokens[-1] = ordered[-1 - row.tokens[-1]][-1]
        answers: dict[tuple[int, ...], list[int]] = {}
        for number, prompt in enumerate(self._prompts):
            answers.setdefault(prompt.tokens, []).append(number)
        by_row = [answers[tokens] for tokens in ordered]
        self._batches = [
            self._cut(branch, by_row, limits, limits.cached - held_at(self._branches, number))
            for number, branch in enumerate(self._branches)
        ]

    def answer(self) -> list[Generation]:
        """See `Prepared`."""
        made: dict[int, Generation] = {}
        kept: dict[int, KeysValues] = {-1: []}
        with torch.no_grad():
            for number, branch in enumerate(self._branches):
                # Preorder: no other trunk is wanted any more.
                kept = {
                    n: held for n, held in kept.items() if n in above_of(self._branches, number)
                }
                above = kept[branch.above]
                if branch.trunk is not None:
                    with told_out_of_memory(TRUNK_REMEDY):
                        above = self._run_trunk(branch, branch.trunk, above)
                kept[number] = above
                for batch in self._batches[number]:
                    run = partial(self._write, branch, batch, above, made)
                    halved_once(run, range(len(batch.rows)))
        return [made[number] for number in self._numbers]

    def _cut(
        self, branch: Branch, by_row: list[list[int]], limits: Limits, cached: int
    ) -> list[_Batch]:
        """A branch's rows, as many together as the caches of their answers have room."""
        parts: list[list[Row]] = []
        room = num_answers = 0
        for row in sorted(branch.rows, key=len, reverse=True):
            answers = by_row[row.slots[0]]
            longest = len(parts[-1][0]) if parts else len(row)
            most_new = max(self._prompts[n].max_new_tokens for n in answers)
            size = len(answers) * (branch.num_seen + longest + most_new)
            too_many = num_answers + len(answers) > limits.reads
            if not parts or too_many or room + size > cached:
                parts.append([])
                room = num_answers = 0
            parts[-1].append(row)
            room += size
            num_answers += len(answers)
        return [
            _Batch(
                rows=rows,
                answers=[by_row[row.slots[0]] for row in rows],
                most_new=max(
                    self._prompts[n].max_new_tokens for row in rows for n in by_row[row.slots[0]]
                ),
            )
            for rows in parts
        ]

    def _write(
        self,
        branch: Branch,
        batch: _Batch,
        above: KeysValues,
        made: dict[int, Generation],
        rows: Sequence[int],
    ) -> None:
        """Write the answers of some rows of a batch."""
        from evomerge.backends.caches import GrowingCache

        part = batch.rows[rows[0] : rows[-1] + 1]
        num_prompt = branch.num_seen + max(map(len, part))
        cache = GrowingCache(above, len(part), num_prompt, batch.most_new)
        logits = self._prefill(branch, part, cache)
        table = _Table.of(part, branch.num_seen, batch.most_new, self._runner.device)
        answers = [self._begin(n) for row in rows for n in batch.answers[row]]
        if len(answers) > len(part):
            which = [place for place, row in enumerate(rows) for _ in batch.answers[row]]
            at = torch.tensor(which, device=self._runner.device)
            cache.keep(at)
            logits, table = logits[at], table.of_rows(at)
        cache.turn_to(0, len(answers), num_prompt)
        self._go_on(answers, logits, table, cache)
        for answer in answers:
            text = str(self._tokenizer.decode(answer.tokens, skip_special_tokens=True))
            made[answer.number] = Generation(text, tuple(answer.tokens), answer.is_cut)

    def _begin(self, number: int) -> _Answer:
        prompt = self._prompts[number]
        answer = _Answer(number, prompt)
        if self._settings.samples:
            answer.uniforms = np.random.default_rng(prompt.seed).random(prompt.max_new_tokens)
        if self._settings.processes:
            answer.processors = self._settings.processors(prompt.tokens, prompt.max_new_tokens)
            room = [0] * prompt.max_new_tokens
            answer.ids = torch.tensor([[*prompt.tokens, *room]], device=self._runner.device)
        return answer

    def _run_trunk(self, branch: Branch, trunk: Row, above: KeysValues) -> KeysValues:
        from evomerge.backends.caches import keys_values, trunk_cache

        cache = trunk_cache(above)
        self._runner.logits(inputs_of([trunk], branch.num_above, self._runner.device), cache)
        return keys_values(cache)

    def _prefill(self, branch: Branch, rows: list[Row], cache: GrowingCache) -> Tensor:
        """Run prompts; the logits behind each, shape [rows, V]."""
        logits = []
        low = 0
        for part in batches(rows, branch.num_seen, self._limits):
            cache.turn_to(low, low + len(part), branch.num_seen)
            inputs = inputs_of(part, branch.num_seen, self._runner.device)
            logits.append(self._runner.logits(inputs, cache))
            low += len(part)
        return torch.cat(logits)

    def _go_on(
        self, answers: list[_Answer], logits: Tensor, table: _Table, cache: GrowingCache
    ) -> None:
        """Write token after token until every answer has ended."""
        largest: list[Tensor] = []
        alive = [True] * len(answers)
        for step in range(max(answer.prompt.max_new_tokens for answer in answers)):
            scores = logits.float()
            # Not looked at before the end: on a GPU every look waits for the step to finish.
            largest.append(scores.amax())
            tokens = self._next(answers, alive, scores).tolist()
            for place, answer in enumerate(answers):
                if alive[place]:
                    answer.tokens.append(tokens[place])
            self._end(answers, alive)
            if not any(alive):
                break
            leaving = alive.count(False)
            # A row that has ended is run on, but not beyond what the model reads.
            is_over = any(step + 1 >= answer.prompt.max_new_tokens for answer in answers)
            if leaving >= max(1, LEAST_LEAVING * len(alive)) or (leaving and is_over):
                places = [place for place, lives in enumerate(alive) if lives]
                at = torch.tensor(places, device=logits.device)
                cache.keep(at)
                table = table.of_rows(at)
                answers = [answers[place] for place in places]
                tokens = [tokens[place] for place in places]
                alive = [True] * len(answers)
                cache.turn_to(0, len(answers), table.num_prompt + step)
            ids = torch.tensor(tokens, device=logits.device)[:, None]
            logits = self._runner.logits(table.inputs(ids, step), cache)
        require_finite(torch.stack(largest).tolist(), "logit")

    def _next(self, answers: list[_Answer], alive: list[bool], scores: Tensor) -> Tensor:
        """The next token of each answer, shape [B]."""
        if self._settings.processes:
            rows = [scores[place : place + 1] for place in range(len(answers))]
            for place, answer in enumerate(answers):
                if alive[place] and answer.ids is not None:
                    length = len(answer.prompt.tokens) + len(answer.tokens)
                    if answer.tokens:
                        answer.ids[0, length - 1] = answer.tokens[-1]
                    rows[place] = answer.processors(answer.ids[:, :length], rows[place])
            scores = torch.cat(rows)
        uniforms = None
        if self._settings.samples:
            drawn = [
                answer.uniforms[len(answer.tokens)] if alive[place] else 0.0
                for place, answer in enumerate(answers)
            ]
            uniforms = torch.tensor(drawn, dtype=torch.float64)
        return choose(scores, uniforms)

    def _end(self, answers: list[_Answer], alive: list[bool]) -> None:
        """Find the answers that end with their last token."""
        open_places: dict[tuple[str, ...], list[int]] = {}
        for place, answer in enumerate(answers):
            if not alive[place]:
                continue
            if answer.tokens[-1] in self._settings.ends:
                alive[place] = False
            else:
                open_places.setdefault(answer.prompt.stops, []).append(place)
        for stops, places in open_places.items():
            found = self._endings[stops].found([answers[place].tokens for place in places])
            for place, has_stop in zip(places, found, strict=True):
                answer = answers[place]
                answer.is_cut = not has_stop and len(answer.tokens) == answer.prompt.max_new_tokens
                alive[place] = not has_stop and not answer.is_cut


@dataclass(frozen=True)
class _Table:
    """Where the tokens of rows stand, prompts padded behind.

    Attributes:
        lengths: Shape [B]: tokens of each prompt.
        positions: Shape [B, T]: of every token that a row may have, padding and answer included.
        holds: Shape [B, T], bool: whether it is no padding.
        num_prompt: Places before the answers.
    """

    lengths: Tensor
    positions: Tensor
    holds: Tensor
    num_prompt: int

    @classmethod
    def of(cls, rows: Sequence[Row], num_seen: int, most_new: int, device: torch.device) -> _Table:
        """The table of some rows behind a trunk."""
        num_prompt = num_seen + max(map(len, rows))
        lengths = torch.tensor([num_seen + len(row) for row in rows])[:, None]
        order = torch.arange(num_prompt + most_new)[None]
        behind = order >= num_prompt
        positions = torch.where(behind, order - num_prompt + lengths, order)
        holds = behind | (order < lengths)
        return cls(lengths[:, 0].to(device), positions.to(device), holds.to(device), num_prompt)

    def of_rows(self, rows: Tensor) -> _Table:
        """The table of some of the rows."""
        return replace(
            self,
            lengths=self.lengths[rows],
            positions=self.positions[rows],
            holds=self.holds[rows],
        )

    def inputs(self, ids: Tensor, step: int) -> Inputs:
        """The pass over the answers' tokens of a step, shape [B, 1]."""
        end = self.num_prompt + step + 1
        return Inputs(
            ids=ids,
            positions=(self.lengths + step)[:, None],
            sees=self.holds[:, None, :end],
            seen=self.positions[:, :end],
            places=torch.arange(len(ids), device=ids.device),
        )


def _key(prompt: Prompt, settings: Settings) -> tuple[Any, ...]:
    """What an answer depends on, besides the weights."""
    seed = prompt.seed if settings.samples else 0
    return prompt.tokens, prompt.stops, prompt.max_new_tokens, seed
