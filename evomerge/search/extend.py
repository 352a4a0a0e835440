"""A run that goes on beyond its end: a larger budget, other workers, and nothing done twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evomerge.choice.explanation import SIMPLEST
from evomerge.choice.health import require_health
from evomerge.config import SIMPLE, Config, load_config
from evomerge.errors import InputError
from evomerge.journal import RunState
from evomerge.journal.folder import CONFIG_FILE
from evomerge.mistakes import Override
from evomerge.search.run import Run, ranking_of, winner_of

CHANGEABLE = (
    "search.budget",
    "search.finalists",
    "search.explain",
    "search.export",
    "score.cache",
    "score.health",
    "workers",
    "record",
)
"""Fields that a run may have changed; everything else is what its candidates are."""


def changed_config(run_dir: Path, overrides: Sequence[str]) -> Config:
    """A run's configuration with changes.

    Args:
        run_dir: The run folder.
        overrides: "a.b=value" each.

    Raises:
        InputError: A change is none that a run can have.
    """
    path = run_dir / CONFIG_FILE
    config = load_config(path)
    last = f"phases.{len(config.phases) - 1}.budget" if config.phases else "search.budget"
    valid = tuple(last if name == "search.budget" else name for name in CHANGEABLE)
    for text in overrides:
        name = ".".join(Override.read(text).steps)
        if not any(name == field or name.startswith(f"{field}.") for field in valid):
            raise InputError(
                f"--set {text}: a run that has begun keeps its {name.split('.')[0]}; "
                f"valid: {', '.join(valid)}"
            )
    return load_config(path, overrides)


def has_ended(state: RunState) -> bool:
    """Whether the last search has ended, and what it came to is decided or will be."""
    if not state.started:
        return False
    last = state.started["phases"][-1]["name"]
    return state.stages.get("search" if last == SIMPLE else f"search-{last}") == "ended"


def extend(run: Run, overrides: Sequence[str]) -> None:
    """Journal that a run goes on with changes, and write its configuration.

    What the last search and all behind it came to is done again from where it ended; the choice
    that was made, and that the holdout was opened for it, stay on record.

    Raises:
        InputError: The evaluation is sicker than the changes allow.
    """
    config = run.setup.config
    # What a limit stops is found now, where its stage is over.
    if any(text.startswith("score.health") for text in overrides):
        require_health(run.results, config.score)
    last = config.all_phases[-1]
    end = "" if last.name == SIMPLE else f"-{last.name}"
    finalists = f"finalists{end}"
    behind = [f"search{end}", finalists, "random", "explain", "holdout", "report", "export"]
    config.write(run.run_dir / CONFIG_FILE)
    is_over = has_ended(run.state)
    decisions = (finalists, winner_of(last), "front", "chosen", "best_parent", "best_baseline")
    decided = [ranking_of(f"search{end}"), *decisions, "random", "random-finalists", SIMPLEST]
    run.record(
        "extended",
        changes=list(overrides),
        stages=[stage for stage in behind if stage in run.state.stages] if is_over else [],
        decisions=[what for what in decided if what in run.state.decided] if is_over else [],
    )
    run.commit()
