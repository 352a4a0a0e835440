"""What a search is compared with: merges that need none, the greedy soup, and random search."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from evomerge.choice.explanation import SIMPLEST
from evomerge.choice.finalists import FINALISTS, FRONT_FINALISTS
from evomerge.choice.health import require_health
from evomerge.errors import CandidateError, EvomergeError
from evomerge.journal import Candidate
from evomerge.recipe import Recipe
from evomerge.search.run import Run
from evomerge.search.scoring import Scoring
from evomerge.space import Genome, Space, recipes

SOUP = "greedy-soup"
RANDOM = "random"


def baselines(run: Run) -> dict[str, Recipe]:
    """Models that need no search, by candidate id."""
    pool = run.setup.pool
    named = {"base": recipes.member(pool, "base")}
    for expert in pool.experts:
        named[f"parent-{expert.name}"] = recipes.member(pool, expert.name)
    named["uniform"] = recipes.uniform(pool)
    for scale in run.setup.config.search.task_arithmetic_scales:
        named[f"task-arithmetic-{scale:g}"] = recipes.task_arithmetic(pool, scale)
    return named


def score_baselines(run: Run, scoring: Scoring) -> None:
    """Score models that need no search, and the greedy soup, where it is asked for.

    Raises:
        InputError: The evaluation is sicker than `score.health` allows.
        EvomergeError: All of them failed.
    """
    for name, recipe in baselines(run).items():
        if name not in run.state.candidates:
            run.add(name, "baseline", recipe)
    run.commit()
    candidates = run.state.of_origin("baseline")
    scoring.score(candidates, "search", "baselines")
    require_health(run.results, run.setup.config.score)
    scoring.score(candidates, "validation", "baselines")
    require_health(run.results, run.setup.config.score)
    failed = [c for c in candidates if c.failed is not None]
    if len(failed) == len(candidates):
        raise EvomergeError(f"every baseline failed: {failed[0].failed}")
    if "greedy_soup" in run.setup.config.search.baselines:
        _score_soup(run, scoring)


def _score_soup(run: Run, scoring: Scoring) -> None:
    """Average experts as long as that helps (Wortsman et al., arXiv 2203.05482, recipe 1).

    The best expert on validation documents comes first; each next one is taken into the average
    where that is no worse on these documents.
    """
    pool, results = run.setup.pool, run.results
    experts = [f"parent-{expert.name}" for expert in pool.experts]
    ranked = [name.removeprefix("parent-") for name in results.ranked(experts, "validation")]
    if not ranked:
        return
    soup, best = ranked[:1], results.combined(f"parent-{ranked[0]}", "validation")
    for name in ranked[1:]:
        tried = f"{SOUP}-of-{'-'.join([*soup, name])}"
        if tried not in run.state.candidates:
            run.add(tried, "soup", recipes.average(pool, (*soup, name)))
            run.commit()
        scoring.score([run.state.candidates[tried]], "validation", SOUP)
        found = results.combined(tried, "validation")
        if found is not None and best is not None and found.value >= best.value:
            soup, best = [*soup, name], found
    if SOUP not in run.state.candidates:
        run.add(SOUP, "baseline", recipes.average(pool, tuple(soup)))
        run.commit()
    for split in ("search", "validation"):
        scoring.score([run.state.candidates[SOUP]], split, SOUP)


def score_random(run: Run, scoring: Scoring, decide: Callable[[str, Any], None]) -> None:
    """Search at random, with as many candidates as the search had, and choose as it does.

    Args:
        run: The run, whose last search has ended.
        scoring: Scores its candidates.
        decide: Journals a decision.
    """
    run.phase = len(run.setup.config.all_phases) - 1
    space = run.space(run.phase)
    candidates = []
    for number in range(run.state.num_searched):
        name = f"{RANDOM}-{number:05d}"
        if name not in run.state.candidates:
            run.add(name, "random", _drawn(space, run.setup.config.seed, number))
        candidates.append(run.state.candidates[name])
    run.commit()
    scoring.score(candidates, "search", RANDOM)
    results, config = run.results, run.setup.config
    finds_front = config.all_phases[run.phase].optimizer.finds_front
    wanted = config.search.finalists or (FRONT_FINALISTS if finds_front else FINALISTS)
    # In a small space one recipe is drawn more than once.
    distinct: dict[str, str] = {}
    for candidate in candidates:
        distinct.setdefault(candidate.recipe_sha256, candidate.id)
    ids = results.ranked(list(distinct.values()), "search")[:wanted]
    decide("random-finalists", ids)
    scoring.score([run.state.candidates[name] for name in ids], "validation", RANDOM)
    ranked = results.ranked(ids, "validation")
    if ranked:
        decide("random", ranked[0])


def _drawn(space: Space, seed: int, number: int) -> Recipe:
    """A recipe at random, the same for the same seed and number."""
    for attempt in count():
        rng = np.random.default_rng([seed, 11, number, attempt])
        genome = space.canonical(_genome(space, rng))
        try:
            return space.to_recipe(genome)
        except CandidateError:
            # Weights that are all zero make no candidate.
            if attempt == 100:
                raise
    raise AssertionError


def _genome(space: Space, rng: np.random.Generator) -> Genome:
    return tuple(
        float(rng.integers(int(d.low), int(d.high), endpoint=True))
        if d.integer
        else float(rng.uniform(d.low, d.high))
        for d in space.dimensions
    )


def compared(run: Run) -> list[Candidate]:
    """Who is compared with the chosen model in the end."""
    state = run.state
    decided = [state.decided.get(role) for role in ("random", SIMPLEST)]
    others = [state.candidates[name] for name in decided if name is not None]
    return [*state.of_origin("baseline"), *(c for c in others if c.origin != "baseline")]
