"""A run folder that is open for work: its journal, what the journal says, and its workers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from evomerge.choice import Results
from evomerge.choice.model import SearchedPhase
from evomerge.config import Config, PhaseConfig, load_config
from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.journal import JOURNAL_FILE, Candidate, Journal, RunState, apply_all
from evomerge.journal.folder import CONFIG_FILE, RECIPES_DIR
from evomerge.journal.journal import Kind, check_is_run, refuse_without_journal
from evomerge.journal.room import when_there_is_room
from evomerge.recipe import Recipe
from evomerge.search.disk import require_disk
from evomerge.search.facts import facts_of
from evomerge.search.new_folder import check_free, take
from evomerge.search.setup import Setup, set_up
from evomerge.search.warm_start import keep_starts
from evomerge.space import Genome, Space
from evomerge.workers.fits import require_actors

logger = logging.getLogger(__name__)

NUM_KEPT_RECIPES = 64
"""Recipes made last that are kept, so that who is handed out at once is not made again."""


class Run:
    """One search in its folder.

    Args:
        run_dir: The folder.
        setup: What the run works with.
        journal: The folder's, which is locked while the run is open.
        strict: Stop where a replayed ask differs from its record.
    """

    def __init__(
        self, run_dir: Path, setup: Setup, journal: Journal, *, strict: bool = False
    ) -> None:
        self.run_dir = run_dir
        self.setup = setup
        self.strict = strict
        self.journal = journal
        self.state = RunState()
        self.results = Results(run_dir, self.state)
        apply_all(self.state, self.journal.take_read(), run_dir)
        self.phase = 0
        self._spaces: dict[int, Space] = {0: setup.spaces[0]}
        self._recipes: dict[str, Recipe] = {}

    def space(self, phase: int) -> Space:
        """A phase's space; of a later one, once the phase before has a winner."""
        if phase not in self._spaces:
            winner = self.state.decided[winner_of(self.setup.config.all_phases[phase - 1])]
            merged = self.recipe(self.state.candidates[winner])
            self._spaces[phase] = self.setup.make_space(phase, merged)
        return self._spaces[phase]

    def searched_phase(self, number: int) -> SearchedPhase:
        """A phase as its candidates are chosen by it."""
        optimizer = self.setup.config.all_phases[number].optimizer
        return SearchedPhase(number, self.space(number).dimensions, optimizer)

    def record(self, kind: Kind, **data: Any) -> None:
        """Append an event and take it in; durable after `commit`."""
        self.state.apply(self.journal.append(kind, **data))

    def commit(self) -> None:
        """Make everything recorded durable."""
        self.journal.commit()

    def close(self) -> None:
        """Commit and let go of the journal."""
        self.journal.close()

    def recipe(self, candidate: Candidate) -> Recipe:
        """A candidate's recipe; of an asked one, made again from its genome.

        Raises:
            InputError: The genome gives another recipe than when it was recorded.
        """
        if candidate.id in self._recipes:
            return self._recipes[candidate.id]
        if candidate.recipe_json is not None:
            return Recipe.from_json(candidate.recipe_json)
        assert candidate.genome is not None
        recipe = self.space(candidate.phase).to_recipe(candidate.genome)
        if recipe.sha256 != candidate.recipe_sha256:
            raise InputError(
                f"{self.run_dir}: candidate {candidate.id} has recipe "
                f"{candidate.recipe_sha256[:12]} in the journal, its genome gives "
                f"{recipe.sha256[:12]}: the search space has changed"
            )
        return recipe

    def add(
        self, candidate: str, origin: str, recipe: Recipe, *, inbox: str | None = None
    ) -> Candidate:
        """Record a candidate that nobody asked for: a baseline or an enqueued recipe."""
        self.record(
            "enqueued",
            candidate=candidate,
            origin=origin,
            recipe=recipe.model_dump(mode="json"),
            genome=self.space(self.phase).to_genome(recipe),
            inbox=inbox,
            phase=self.phase,
        )
        self._keep(candidate, recipe)
        return self.state.candidates[candidate]

    def add_asked(self, ask: int, genome: Genome, *, proposed: Genome | None = None) -> Candidate:
        """Record a candidate that the optimizer proposed.

        Args:
            ask: Number of the ask.
            genome: What is scored for it.
            proposed: What the optimizer proposed, where that is something else.
        """
        recipe = self.space(self.phase).to_recipe(genome)
        candidate = f"c{ask:05d}" if self.phase == 0 else f"p{self.phase + 1}-c{ask:05d}"
        self.record(
            "asked",
            candidate=candidate,
            ask=ask,
            genome=genome,
            recipe_sha256=recipe.sha256,
            phase=self.phase,
            **({} if proposed is None else {"proposed": proposed}),
        )
        self._keep(candidate, recipe)
        return self.state.candidates[candidate]

    def _keep(self, candidate: str, recipe: Recipe) -> None:
        self._recipes[candidate] = recipe
        if len(self._recipes) > NUM_KEPT_RECIPES:
            del self._recipes[next(iter(self._recipes))]
        self.write_recipe(candidate, recipe)

    def write_recipe(self, candidate: str, recipe: Recipe) -> None:
        """Write a candidate's recipe file."""
        # Not flushed: the journal has what the file says.
        path = self.run_dir / RECIPES_DIR / f"{candidate}.yaml"
        text = recipe.to_yaml()
        when_there_is_room(lambda: write_text(path, text, durable=False), path)


def ranking_of(stage: str) -> str:
    """What the journal calls the order of a search's candidates by estimates."""
    return f"ranking-{stage}"


def winner_of(phase: PhaseConfig) -> str:
    """What the journal calls the decision for a phase's winner."""
    return f"winner-{phase.name}"


def start_run(setup: Setup, run_dir: Path) -> Run:
    """Begin a run in a new folder, or in one whose run never began.

    Raises:
        InputError: The folder has a run that began, the actors do not fit, or something that the
            run needs cannot be read. No folder is made then.
    """
    check_free(run_dir)
    require_actors(setup.config.workers, setup.pool)
    require_disk(setup, run_dir)
    facts = facts_of(setup)
    journal = take(run_dir)
    try:
        setup.config = keep_starts(setup.starts.recipes, setup.config, run_dir)
        setup.config.write(run_dir / CONFIG_FILE)
        run = Run(run_dir, setup, journal)
    except BaseException:
        journal.close()
        raise
    run.record("run_started", **facts)
    run.commit()
    return run


def reopen_run(run_dir: Path, *, strict: bool = False, config: Config | None = None) -> Run:
    """Open a run folder to go on with it.

    Args:
        run_dir: The run folder.
        strict: Stop where a replayed ask differs from its record.
        config: The configuration in the place of the folder's.

    Raises:
        NotNowError: Another process has the run open.
        InputError: It is no run folder, or models or documents have changed.
    """
    check_is_run(run_dir)
    # Before the models are hashed, which takes minutes: a run that is in use is refused at once.
    journal = Journal(run_dir / JOURNAL_FILE)
    try:
        if not journal.next_seq:
            refuse_without_journal(run_dir)
        setup = set_up(config or load_config(run_dir / CONFIG_FILE), run_dir)
        run = Run(run_dir, setup, journal, strict=strict)
    except BaseException:
        journal.close()
        raise
    if not run.state.started:
        # Killed between making the folder and the first line: begin.
        run.close()
        (run_dir / JOURNAL_FILE).unlink()
        return start_run(run.setup, run_dir)
    return run
