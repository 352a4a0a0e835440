"""What a journal says: candidates with their scores, stages, decisions."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.journal.candidate import Candidate, Derived, DerivedTerm
from evomerge.journal.comparisons import ComparisonSet, Sampled, round_of
from evomerge.journal.folder import JOURNAL_FILE
from evomerge.journal.journal import Event, read_journal, remedy
from evomerge.recipe import Recipe
from evomerge.score import SPLITS, Approximation, Split

RecipeOf = Callable[[Candidate], Recipe]
"""Gives a candidate's recipe, by what the journal says of it."""


@dataclass
class PhaseState:
    """What a journal says of the search of one phase.

    Attributes:
        events: Asks and tells, for an optimizer to go on from.
        num_told: Tells so far.
        num_searched: Candidates that were asked or enqueued.
        num_failed: Those of them that were given up on the search split.
        num_documents: Documents scored for them on the search split.
        num_tokens: Tokens run for those that were told and did not fail, on the search split.
        elapsed_s: Seconds of searching at the last tell.
        sets: Candidates that share a sample of documents, in their order.
    """

    events: list[Event] = field(default_factory=list)
    num_told: int = 0
    num_searched: int = 0
    num_failed: int = 0
    num_documents: int = 0
    num_tokens: int = 0
    elapsed_s: float = 0.0
    sets: list[ComparisonSet] = field(default_factory=list)


@dataclass
class RunState:
    """Everything a journal says, by event in its order.

    Attributes:
        started: Data of `run_started`.
        started_at: Its time, seconds since 1970.
        candidates: By id, in order of appearance.
        stages: "started" or "ended" by stage.
        decided: What was decided, by what it is about.
        phases: The search of each phase, by its number; a simple search has one.
        holdout_opened: Candidates whose holdout scores may be seen.
        earlier: Who was chosen before the search went on beyond its end, in that order.
        stopped: Why the run stopped, if it did and was not taken up again.
        inbox: Files of the inbox that are journaled.
        by_recipe: Candidates by their recipe's hash, in order of appearance.
    """

    started: dict[str, Any] = field(default_factory=dict)
    started_at: float = 0.0
    candidates: dict[str, Candidate] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)
    decided: dict[str, Any] = field(default_factory=dict)
    phases: defaultdict[int, PhaseState] = field(default_factory=lambda: defaultdict(PhaseState))
    holdout_opened: list[str] = field(default_factory=list)
    earlier: list[str] = field(default_factory=list)
    stopped: str | None = None
    inbox: set[str] = field(default_factory=set)
    by_recipe: defaultdict[str, list[Candidate]] = field(default_factory=lambda: defaultdict(list))
    _derives: dict[Split, frozenset[str]] = field(default_factory=dict)
    _by_origin: defaultdict[str, list[Candidate]] = field(default_factory=lambda: defaultdict(list))

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        getattr(self, f"_{event.kind}")(event, event.data)

    @property
    def num_searched(self) -> int:
        """Candidates that were asked or enqueued, in all phases."""
        return sum(phase.num_searched for phase in self.phases.values())

    @property
    def num_failed(self) -> int:
        """Those of them that were given up on the search split."""
        return sum(phase.num_failed for phase in self.phases.values())

    @property
    def elapsed_s(self) -> float:
        """Seconds of searching, in all phases."""
        return sum(phase.elapsed_s for phase in self.phases.values())

    def dimensions(self, phase: int) -> list[str]:
        """Names of the numbers of a phase's genomes."""
        # Journals of a single phase used to say them alone.
        entries = self.started.get("phases") or [self.started]
        names: list[str] = entries[phase]["dimensions"]
        return names

    def of_origin(self, *origins: str) -> list[Candidate]:
        """Candidates of these origins, in order of appearance."""
        if len(origins) == 1:
            # Asked for with every candidate, of which there may be thousands.
            return list(self._by_origin[origins[0]])
        return [c for c in self.candidates.values() if c.origin in origins]

    def searched(self, phase: int) -> list[Candidate]:
        """Candidates that a phase asked for or that were enqueued in it."""
        return [c for c in self.of_origin("asked", "enqueued") if c.phase == phase]

    def _run_started(self, event: Event, data: Mapping[str, Any]) -> None:
        self.started = dict(data)
        self.started_at = event.time
        # Objectives that are the mean of no single measure.
        steering, monitors = (
            frozenset(entry["name"] for entry in data.get(what, ()) if not entry["task"])
            for what in ("objectives", "monitors")
        )
        self._derives = {
            split: steering if split == "search" else steering | monitors for split in SPLITS
        }

    def _stage_started(self, event: Event, data: Mapping[str, Any]) -> None:
        self.stages[data["stage"]] = "started"
        self.stopped = None

    def _stage_ended(self, event: Event, data: Mapping[str, Any]) -> None:
        self.stages[data["stage"]] = "ended"

    def _enqueued(self, event: Event, data: Mapping[str, Any]) -> None:
        recipe = Recipe.model_validate(data["recipe"])
        genome = tuple(data["genome"]) if data["genome"] is not None else None
        self._add(
            Candidate(
                data["candidate"],
                data["origin"],
                recipe.sha256,
                genome,
                None,
                recipe.to_json(),
                event.time,
                data.get("phase", 0),
                recipe.is_member,
            )
        )
        self.phases[data.get("phase", 0)].num_searched += data["origin"] == "enqueued"
        if data["inbox"] is not None:
            self.inbox.add(data["inbox"])

    def _asked(self, event: Event, data: Mapping[str, Any]) -> None:
        self._add(
            Candidate(
                data["candidate"],
                "asked",
                data["recipe_sha256"],
                tuple(data["genome"]),
                data["ask"],
                None,
                event.time,
                data.get("phase", 0),
            )
        )
        phase = self.phases[data.get("phase", 0)]
        phase.num_searched += 1
        phase.events.append(event)

    def _add(self, candidate: Candidate) -> None:
        candidate.derives = self._derives
        self.candidates[candidate.id] = candidate
        self._by_origin[candidate.origin].append(candidate)
        self.by_recipe[candidate.recipe_sha256].append(candidate)

    def _dispatched(self, event: Event, data: Mapping[str, Any]) -> None:
        pass

    def _result(self, event: Event, data: Mapping[str, Any]) -> None:
        candidate = self.candidates[data["candidate"]]
        if data.get("sample") is not None:
            self._sample_result(candidate, event, data)
            return
        moments = {
            int(number): {sys.intern(name): (int(m[0]), m[1], m[2]) for name, m in found.items()}
            for number, found in data["blocks"].items()
        }
        is_extra = data["split"] == "search" and _was_estimated(candidate)
        measured = candidate.add(data["split"], data["num_blocks"], moments)
        measured.is_extra |= is_extra
        measured.parts[data["part"]] = tuple(moments)
        measured.build_s += data["build_s"]
        measured.score_s += data["score_s"]
        # Journals used not to say these.
        measured.device = data.get("device")
        measured.weights_sha256 = measured.weights_sha256 or data.get("weights_sha256")
        measured.same_as = data.get("same_as")
        candidate.ended_at = event.time
        if data["split"] == "search" and not measured.is_extra:
            self._spend(candidate, data)

    def _spend(self, candidate: Candidate, data: Mapping[str, Any]) -> None:
        """Count what a result on search documents took."""
        # Journals used not to say how many were generated.
        candidate.num_tokens += data.get("num_tokens", 0) + data.get("num_answer_tokens", 0)
        if candidate.is_searched:
            self.phases[candidate.phase].num_documents += data["num_documents"]

    def _sample_result(self, candidate: Candidate, event: Event, data: Mapping[str, Any]) -> None:
        sampled = _sampled_of(candidate)
        numbers = tuple(map(int, data["blocks"]))
        sampled.num_blocks = data["num_blocks"]
        sampled.blocks.update(numbers)
        sampled.parts[data["part"]] = numbers
        sampled.build_s += data["build_s"]
        sampled.score_s += data["score_s"]
        candidate.ended_at = event.time
        self._spend(candidate, data)

    def _sampled(self, event: Event, data: Mapping[str, Any]) -> None:
        phase = self.phases[data["phase"]]
        tasks = data["tasks"]
        group = ComparisonSet(
            number=data["set"],
            candidates=tuple(data["candidates"]),
            full=frozenset(data["full"]),
            num_told=data["num_told"],
            count=data["count"],
            documents={task: tuple(found["documents"]) for task, found in tasks.items()},
            probabilities={task: tuple(found["probabilities"]) for task, found in tasks.items()},
            predictors=data["predictors"],
        )
        phase.sets.append(group)
        for name in group.candidates:
            self.candidates[name].sampled = Sampled(group)

    def _raced(self, event: Event, data: Mapping[str, Any]) -> None:
        group = self.phases[data["phase"]].sets[data["set"]]
        group.rounds.append(round_of(group, data))
        for name in data["candidates"]:
            # There are more blocks now than were scored.
            _sampled_of(self.candidates[name]).num_blocks = 0

    def _estimated(self, event: Event, data: Mapping[str, Any]) -> None:
        sampled = _sampled_of(self.candidates[data["candidate"]])
        sampled.estimates = {
            name: Approximation(**found) for name, found in data["estimates"].items()
        }
        sampled.residuals = dict(data["residuals"])

    def _derived(self, event: Event, data: Mapping[str, Any]) -> None:
        measured = self.candidates[data["candidate"]].measured[data["split"]]
        measured.derive(
            {
                name: Derived(
                    value=found["value"],
                    standard_error=found["standard_error"],
                    num_documents=found["num_documents"],
                    terms=tuple(DerivedTerm(*term) for term in found["terms"]),
                    own_error=found["own_error"],
                )
                for name, found in data["objectives"].items()
            }
        )

    def _failed(self, event: Event, data: Mapping[str, Any]) -> None:
        candidate = self.candidates[data["candidate"]]
        candidate.num_attempts += 1
        if "block" in data:
            # Journals used to count attempts at a candidate.
            candidate.faults[data["split"], data["block"], data["blame"]] = data["attempt"]
        candidate.ended_at = event.time
        if data["final"] and not (data["split"] == "search" and _was_estimated(candidate)):
            candidate.failures[data["split"]] = data["reason"]
            if candidate.is_searched and data["split"] == "search":
                self.phases[candidate.phase].num_failed += 1

    def _told(self, event: Event, data: Mapping[str, Any]) -> None:
        candidate = self.candidates[data["candidate"]]
        candidate.told = sum(phase.num_told for phase in self.phases.values())
        phase = self.phases[candidate.phase]
        phase.num_told += 1
        if "search" not in candidate.failures:
            # How far one came that failed depends on the number of actors.
            phase.num_tokens += candidate.num_tokens
        phase.elapsed_s = data["elapsed_s"]
        phase.events.append(event)

    def _holdout_opened(self, event: Event, data: Mapping[str, Any]) -> None:
        self.holdout_opened += [c for c in data["candidates"] if c not in self.holdout_opened]

    def _rebased(self, event: Event, data: Mapping[str, Any]) -> None:
        pass

    def _decided(self, event: Event, data: Mapping[str, Any]) -> None:
        self.decided[data["what"]] = data["value"]

    def _extended(self, event: Event, data: Mapping[str, Any]) -> None:
        """The last search goes on: what was decided behind it is decided anew."""
        if "chosen" in self.decided and self.holdout_opened:
            self.earlier.append(self.decided["chosen"])
        for stage in data["stages"]:
            self.stages.pop(stage, None)
        for what in data["decisions"]:
            self.decided.pop(what, None)

    def _lost(self, event: Event, data: Mapping[str, Any]) -> None:
        for entry in data["results"]:
            candidate = self.candidates[entry["candidate"]]
            if candidate.sampled is not None and entry["part"] in candidate.sampled.parts:
                candidate.sampled.lose(entry["part"])
            else:
                candidate.measured[entry["split"]].lose(entry["part"])

    def _stopped(self, event: Event, data: Mapping[str, Any]) -> None:
        self.stopped = data["reason"]


def _was_estimated(candidate: Candidate) -> bool:
    """Whether an estimate is what was told of a candidate: more is asked for by a person."""
    return candidate.told is not None and candidate.is_searched_by_sample


def _sampled_of(candidate: Candidate) -> Sampled:
    if candidate.sampled is None:
        raise LookupError(f"{candidate.id} has no sample")
    return candidate.sampled


def replay(run_dir: Path) -> RunState:
    """What a run's journal says.

    Raises:
        InputError: A line is damaged, or does not fit those before it.
    """
    state = RunState()
    apply_all(state, read_journal(run_dir / JOURNAL_FILE)[0], run_dir)
    return state


def apply_all(state: RunState, events: Iterable[Event], run_dir: Path) -> None:
    """Take in events that were read from a run's journal.

    Raises:
        InputError: One does not fit those before it.
    """
    for event in events:
        try:
            state.apply(event)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            path = run_dir / JOURNAL_FILE
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(
                f"{path}: line {event.seq + 1} ({event.kind}) does not fit those before it: "
                f"{reason}\n{remedy(path)}"
            ) from None


def normal_form(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """A run without times, attempts and process events, to compare two runs by.

    Returns:
        For each candidate, in order of appearance: its id, genome, recipe hash, scores by split
        and objective as (value, standard error, documents), failure, and order of tell.
    """
    state = RunState()
    for event in events:
        state.apply(event)
    return [
        (
            c.id,
            c.genome,
            c.recipe_sha256,
            tuple(
                (
                    split,
                    tuple((n, *astuple(e)) for n, e in s.items()),
                )
                for split in sorted(SPLITS)
                if (s := c.scores(split)) is not None
            ),
            c.failed,
            c.told,
        )
        for c in state.candidates.values()
    ]
