"""Layer order: does the search find the best path, and what does a path cost?

Brute force: layer_order_table.json has the scores of all 4,095 paths through two models of the
demo pool (layer_order_table.py says how it was made). A hundred random rows are measured again;
then searches run against the table, with a tenth of the evaluations. A seed hits when it finds a
path within one point of the best; regret is the best path's score minus the best found, as shares.
The binary encoding by nevergrad's optimizer, the continuous one by CMA-ES, and random bits.

Cost: changing the path of a resident model, and scoring a path of nine layers against one of six.

Searches of the demo pool (not with --quick): parameter space, layer order, and one after the
other with half of the candidates each, on all three skills. With --full, layer order with scales
by both encodings, on two skills; their progress is drawn into docs/layer_order_encodings.svg.
Scores are those of the chosen models on holdout documents.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH, LAYER_ORDER_PATH
from evomerge.optimize import OPTIMIZERS, Ask, Goal, OptimizerConfig, Scored
from evomerge.optimize.any_nevergrad import NevergradConfig
from evomerge.optimize.cma import CmaConfig
from evomerge.optimize.random_search import RandomConfig
from evomerge.pool import Pool
from evomerge.search import Quiet
from evomerge.search.api import start
from evomerge.search.setup import box_of
from evomerge.space import SPACES, Space
from evomerge.space.path_config import LayerOrderConfig
from evomerge.workers.ray_cluster import start_ray, stop_ray
from harness import describe_machine, parse_arguments, print_table, write_figures
from layer_order_table import NUM_LAYERS, NUM_PLACES, TABLE_PATH, Bits, PathScorer

Encoding = Literal["binary", "continuous"]

EVALUATIONS = 409
"""A tenth of all paths."""

WITHIN = 0.01
CANDIDATES = 100
ENCODING_SEEDS = 5
FIGURE_PATH = Path(__file__).parents[1] / "docs/layer_order_encodings.svg"
LAYER_ORDER = "{kind: layer_order, models: [%s, sort, numeral], ends: free, max_hops: 12}"
PARAMETER = "{kind: parameter, method: {kind: task_arithmetic}}"


def measure_again(table: dict[str, Any], scorer: PathScorer, num_rows: int) -> None:
    """Stop where the table is not what this machine measures."""
    for bits in random.Random(0).sample(sorted(table["right"]), num_rows):
        found = list(scorer.right(bits))
        if found != table["right"][bits]:
            raise SystemExit(
                f"path {bits}: {found} documents right, the table has {table['right'][bits]}: "
                "make the table again by layer_order_table.py"
            )


def make_space(pool: Pool, models: tuple[str, ...], encoding: Encoding) -> Space:
    """The space of the table."""
    config = LayerOrderConfig(models=models, scaling="none", ends="free", encoding=encoding)
    return SPACES.make(config, pool, None)


def bits_of(space: Space, genome: tuple[float, ...], models: list[str]) -> Bits:
    """The row of the table that a genome's path is."""
    path = space.to_recipe(genome).path
    assert path is not None
    hops = {(hop.model, hop.layer) for hop in path.hops}
    return "".join("01"[(model, layer) in hops] for model in models for layer in range(NUM_LAYERS))


def search_table(
    config: OptimizerConfig, space: Space, models: list[str], scores: dict[Bits, float], seed: int
) -> tuple[float, int]:
    """Search the table; the best score found, and distinct paths looked at."""
    optimizer = OPTIMIZERS.make(config, box_of(space), [Goal()], seed)
    seen = {}
    for _ in range(EVALUATIONS):
        answer = optimizer.ask()
        if not isinstance(answer, Ask):
            break
        bits = bits_of(space, answer.genome, models)
        seen[bits] = scores[bits]
        optimizer.tell(answer.number, Scored((-scores[bits],), (0.0,)))
    return max(seen.values()), len(seen)


def brute_force(
    table: dict[str, Any], pool: Pool, num_seeds: int, num_regret: int
) -> dict[str, Any]:
    """Searches against the table; the figures."""
    models = table["models"]
    total = len(table["skills"]) * table["documents_per_skill"]
    scores = {bits: sum(right) / total for bits, right in table["right"].items()}
    ranked = sorted(scores.values(), reverse=True)
    best = ranked[0]
    rows, found, regrets = [], {}, {}
    searches: list[tuple[OptimizerConfig, Encoding]] = [
        (NevergradConfig(), "binary"),
        (CmaConfig(), "continuous"),
        (RandomConfig(), "binary"),
    ]
    for config, encoding in searches:
        space = make_space(pool, tuple(models), encoding)
        results = [search_table(config, space, models, scores, seed) for seed in range(num_regret)]
        found[config.kind] = [score for score, _ in results[:num_seeds]]
        regrets[config.kind] = statistics.fmean(best - score for score, _ in results)
        for seed, (score, seen) in enumerate(results[:num_seeds]):
            rank = str(ranked.index(score) + 1)
            rows.append(
                [f"{encoding}, {config.kind}, seed {seed}", f"{score:.4f}", rank, str(seen)]
            )
        regret = f"{regrets[config.kind]:.4f}"
        rows.append([f"{encoding}, {config.kind}, mean regret of {num_regret}", regret])
    parents = ["1" * NUM_LAYERS + "0" * NUM_LAYERS, "0" * NUM_LAYERS + "1" * NUM_LAYERS]
    title = (
        f"best of 4,095 paths {best:.4f}; {models[0]} alone {scores[parents[0]]:.4f}, "
        f"layers of {models[1]} alone {scores[parents[1]]:.4f}"
    )
    print_table(title, ["search", "found", "rank", "paths"], rows)
    hits = [score for score in found["nevergrad"] if score >= best - WITHIN - 1e-12]
    return {
        "bruteforce_best": best,
        "found_best": max(found["nevergrad"]),
        "evaluations_share": EVALUATIONS / len(scores),
        "seeds_hit": len(hits),
        "seeds": num_seeds,
        "search_regret": regrets["nevergrad"],
        "random_regret": regrets["random"],
    }


def costs(scorer: PathScorer, rounds: int) -> dict[str, float]:
    """Milliseconds to change a path, and the time of nine layers as a multiple of six."""
    own = "1" * NUM_LAYERS + "0" * (NUM_PLACES - NUM_LAYERS)
    longer = own[: NUM_LAYERS + NUM_LAYERS // 2].replace("0", "1").ljust(NUM_PLACES, "0")
    recipes = [scorer.recipe(own), scorer.recipe(longer)]
    for bits in (own, longer):
        scorer.right(bits)
    switches, shares = [], []
    for number in range(200):
        started = time.perf_counter()
        scorer.candidates.load(recipes[number % 2])
        switches.append(1000 * (time.perf_counter() - started))
    for _ in range(rounds):
        seconds = []
        for bits in (own, longer):
            started = time.perf_counter()
            scorer.right(bits)
            seconds.append(time.perf_counter() - started)
        shares.append(seconds[1] / seconds[0])
    figures = {
        "path_switch_ms": statistics.median(switches),
        "longer_path_cost": statistics.median(shares),
    }
    rows = [
        ["changing the path of a resident model", f"{figures['path_switch_ms']:.2f} ms"],
        ["scoring 9 layers instead of 6", f"x {figures['longer_path_cost']:.2f}"],
    ]
    print_table(f"median of {rounds} rounds", ["cost", "measured"], rows)
    return figures


def on_holdout(folder: Path, candidates: int) -> dict[str, float]:
    """The demo pool by each space and by one after the other, at equal budgets."""
    order = LAYER_ORDER % "reverse"
    half = candidates // 2
    both = (
        f"phases=[{{name: parameter_space, space: {PARAMETER}, budget: {{candidates: {half}}}}}, "
        f"{{name: layer_order, space: {LAYER_ORDER % 'merged'}, optimizer: {{kind: nevergrad}}, "
        f"budget: {{candidates: {candidates - half}}}}}]"
    )
    whole = f"search.budget={{candidates: {candidates}}}"
    variants = {
        "ps_holdout": [f"space={PARAMETER}", whole],
        "dfs_holdout": [f"space={order}", "optimizer={kind: nevergrad}", whole],
        "ps_then_dfs_holdout": ["space=null", "optimizer={kind: cma}", "search.budget=null", both],
    }
    figures, rows = {}, []
    start_ray(load_config(CONFIG_PATH).workers)
    for name, overrides in variants.items():
        config = load_config(
            CONFIG_PATH, [*overrides, "record.enabled=false", "search.export=false"]
        )
        results = start(config, CONFIG_PATH.parent, folder / name, Quiet()).results
        score = results.combined(results.state.decided["chosen"], "holdout")
        assert score is not None
        figures[name] = score.value
        rows.append([name, f"{score.value:.3f} ±{score.standard_error:.3f}"])
    stop_ray()
    print_table(f"{candidates} candidates each, holdout", ["search", "score"], rows)
    return figures


def compare_encodings(folder: Path, num_seeds: int) -> dict[str, list[list[float]]]:
    """Layer order with a scale for each hop, by both encodings.

    Returns:
        For each encoding and seed, the best score on search documents so far, by candidate.
    """
    optimizers = {"binary": "{kind: nevergrad}", "continuous": "{kind: cma}"}
    curves: dict[str, list[list[float]]] = {}
    rows = []
    start_ray(load_config(LAYER_ORDER_PATH).workers)
    for encoding, optimizer in optimizers.items():
        curves[encoding] = []
        holdout = []
        for seed in range(num_seeds):
            overrides = [
                f"space.encoding={encoding}",
                "space.scaling=hop",
                f"optimizer={optimizer}",
                f"seed={seed}",
                f"search.budget={{candidates: {CANDIDATES}}}",
                "search.task_arithmetic_scales=[]",
                "search.export=false",
                "record.enabled=false",
            ]
            config = load_config(LAYER_ORDER_PATH, overrides)
            run_dir = folder / f"{encoding}-{seed}"
            results = start(config, LAYER_ORDER_PATH.parent, run_dir, Quiet()).results
            best: list[float] = []
            for candidate in results.state.searched(0):
                estimate = results.combined(candidate.id, "search")
                value = estimate.value if estimate is not None else float("-inf")
                best.append(max(value, best[-1] if best else value))
            curves[encoding].append(best)
            chosen = results.combined(results.state.decided["chosen"], "holdout")
            assert chosen is not None
            holdout.append(chosen.value)
        ends = [curve[-1] for curve in curves[encoding]]
        rows.append([encoding, _spread(ends), _spread(holdout)])
    stop_ray()
    title = f"encodings, {CANDIDATES} candidates, {num_seeds} seeds: mean (least to greatest)"
    print_table(title, ["encoding", "best on search", "chosen on holdout"], rows)
    return curves


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def draw(curves: dict[str, list[list[float]]], path: Path) -> None:
    """Best score so far by candidate: a thin line a seed, a thick one for their mean."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for (encoding, lines), color in zip(curves.items(), ("#3b6fb6", "#d1803b"), strict=True):
        for line in lines:
            axes.plot(line, color=color, alpha=0.3, linewidth=1)
        mean = [statistics.fmean(values) for values in zip(*lines, strict=False)]
        axes.plot(mean, color=color, linewidth=2.5, label=encoding)
    axes.set_xlabel("candidates")
    axes.set_ylabel("best score on search documents")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run the benchmark."""
    size, json_path = parse_arguments(__doc__ or "")
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    print(f"machine: {describe_machine()}")
    table = json.loads(TABLE_PATH.read_text(encoding="utf-8"))
    scorer = PathScorer()
    measure_again(table, scorer, 5 if size == "quick" else 100)
    quick = size == "quick"
    figures = brute_force(table, scorer.pool, 2 if quick else 5, 2 if quick else 20)
    figures |= costs(scorer, 1 if quick else 9)
    if not quick:
        with tempfile.TemporaryDirectory() as name:
            figures |= on_holdout(Path(name), CANDIDATES)
            if size == "full":
                draw(compare_encodings(Path(name), ENCODING_SEEDS), FIGURE_PATH)
    write_figures(figures, json_path)


if __name__ == "__main__":
    main()
