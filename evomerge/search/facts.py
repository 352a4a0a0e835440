"""What a journal's first line says of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from evomerge.pool import load_tokenizer
from evomerge.score.chance import chances
from evomerge.score.chat import chat_of
from evomerge.search.setup import Setup
from evomerge.search.warm_start import documents_sha256


def facts_of(setup: Setup) -> dict[str, Any]:
    """What a journal's first line says."""
    assert setup.config.resolved is not None
    return {
        "name": setup.config.name,
        "seed": setup.config.seed,
        "pool_sha256": setup.config.resolved.pool_sha256,
        "versions": setup.config.resolved.versions,
        "phases": [
            {
                "name": phase.name,
                "dimensions": [d.name for d in space.dimensions],
                "finds_front": phase.optimizer.finds_front,
            }
            for phase, space in zip(setup.config.all_phases, setup.spaces, strict=True)
        ],
        "objectives": [asdict(objective) for objective in setup.objectives],
        "monitors": [asdict(objective) for objective in setup.monitors],
        "chance": chances(setup.tasks, setup.splits),
        "measures": [asdict(measure) for measure in setup.tasks.measures],
        "duplicates": duplicates_of(setup),
        "prompts": prompts_of(setup),
        "leaks": {
            task: {str(document): share for document, share in shares.items()}
            for task, shares in setup.leaks.items()
        },
        "splits": {task: dict(by_split) for task, by_split in setup.splits.items()},
        "documents": documents_sha256(setup.tasks),
        "ancestors": setup.starts.ancestors,
    }


def duplicates_of(setup: Setup) -> dict[str, Any]:
    """How many documents share a split because they say nearly the same, or agree in a field."""
    groups, field = setup.tasks.groups, setup.config.score.splits.group_by
    found: dict[str, Any] = {}
    if groups.num_near:
        found["near"] = dict(groups.num_near)
    values = Counter(
        str(document[field])
        for documents in setup.tasks.documents.values()
        for document in documents
        if field is not None
    )
    shared = sum(count > 1 for count in values.values())
    if field is not None and shared:
        found["group_by"] = {"field": field, "num_groups": shared}
    return found


def prompts_of(setup: Setup) -> dict[str, Any]:
    """Whether prompts are chats, beside whether the base knows any; empty without lm-eval."""
    score = setup.config.score
    if score.kind != "lm_eval":
        return {}
    tokenizer = load_tokenizer(setup.pool)
    chat = chat_of(score, tokenizer, setup.pool.base.source)
    if chat.sha256 is None:
        return {"template": None, "base_has_template": tokenizer.chat_template is not None}
    descriptions = any(task.config.description for task in setup.tasks.tasks.values())
    return {
        "template": chat.sha256,
        "base_has_template": True,
        "as_turns": chat.as_turns,
        "without_descriptions": descriptions and not chat.takes_system,
    }
