"""Mistakes in runs and recipes."""

from __future__ import annotations

import shutil
from pathlib import Path

from bad_input.mistakes import (
    EXPERT,
    Case,
    begun_run,
    both,
    damaged_journal,
    edit_recipe,
    flip_a_byte,
    nothing,
    recipe_file,
    run_folder,
)


def mergekit_file(folder: Path) -> None:
    (folder / "merge.yaml").write_text(
        "merge_method: linear\nmodels: [{model: pool/expert0, parameters: {weight: 1}}]\n"
    )


CASES = {
    "search into a run": Case(
        begun_run,
        ("run has a run already", "evomerge resume run"),
        ("search config.yaml --run-dir run",),
    ),
    "search into a file": Case(
        lambda folder: (folder / "run").write_text("mine"),
        ("run",),
        ("search config.yaml --run-dir run",),
    ),
    "no run folder": Case(
        lambda folder: (folder / "run").mkdir(),
        ("run", "no run folder", "journal.jsonl"),
        (
            "resume run",
            "export run --out out",
            "score --run run --candidate c00000",
            "sync run",
        ),
    ),
    "missing run folder": Case(
        nothing, ("run", "no run folder"), ("resume run", "export run --out out", "sync run")
    ),
    "enqueue into no run folder": Case(
        both(recipe_file, lambda folder: (folder / "run").mkdir()),
        ("run", "no run folder"),
        ("enqueue run recipe.yaml",),
    ),
    "damaged journal": Case(
        both(run_folder, damaged_journal),
        ("journal.jsonl", "line 1 is damaged", "checksum"),
        ("resume run", "export run --out out"),
    ),
    "resume with changed models": Case(
        both(run_folder, flip_a_byte),
        ("'expert1' has changed since the run began",),
        ("resume run",),
    ),
    "holdout of a model": Case(
        nothing,
        ("--split 'holdout'", "search, validation", "--run RUN_DIR"),
        ("score pool/expert0 config.yaml --split holdout",),
    ),
    "unknown split": Case(
        run_folder,
        ("--split 'test'", "valid: search, validation"),
        (
            "score pool/expert0 config.yaml --split test",
            "score --run run --candidate base --split test",
        ),
    ),
    "score without a config": Case(
        nothing, ("MODEL_OR_RECIPE CONFIG", "--run RUN_DIR"), ("score pool/expert0",)
    ),
    "score of a missing model": Case(
        nothing, ("./pool/expert9", "missing"), ("score ./pool/expert9 config.yaml",)
    ),
    "unknown candidate": Case(
        run_folder,
        ("no candidate 'c00007'",),
        ("export run --out out --candidate c00007", "score --run run --candidate c00007"),
    ),
    "export before a choice": Case(
        run_folder, ("no candidate is chosen yet", "--candidate"), ("export run --out out",)
    ),
    "export into a folder": Case(
        both(run_folder, lambda folder: (folder / "out").mkdir()),
        ("out exists already",),
        ("export run --out out",),
    ),
    "build into a folder": Case(
        both(recipe_file, lambda folder: (folder / "out").mkdir()),
        ("out exists already",),
        ("build recipe.yaml --out out",),
    ),
    "enqueue a mergekit configuration": Case(
        both(run_folder, mergekit_file),
        ("merge.yaml is a mergekit configuration", "`evomerge convert"),
        ("enqueue run merge.yaml",),
    ),
    "enqueue a recipe of another vocabulary": Case(
        both(run_folder, recipe_file, edit_recipe(vocabulary={"sha256": "0" * 64})),
        ("the recipe's vocabulary is {'sha256'", "the pool's the base's"),
        ("enqueue run recipe.yaml",),
    ),
    "enqueue a recipe of another pool": Case(
        both(run_folder, flip_a_byte, recipe_file),
        ("'expert1'", "not a model of this run's pool", "expert0 ("),
        ("enqueue run recipe.yaml",),
    ),
    "build with a changed member": Case(
        both(recipe_file, flip_a_byte),
        ("'expert1'", "hash", "changed"),
        ("build recipe.yaml --out out",),
    ),
    "build with a missing member": Case(
        both(recipe_file, lambda folder: shutil.rmtree(folder / EXPERT)),
        (EXPERT, "missing"),
        ("build recipe.yaml --out out", "score recipe.yaml config.yaml"),
    ),
    "missing recipe": Case(
        run_folder,
        ("recipe.yaml", "cannot read", "No such file"),
        ("build recipe.yaml --out out", "enqueue run recipe.yaml"),
    ),
    "recipe of a newer release": Case(
        both(recipe_file, edit_recipe(schema_version=3)),
        ("recipe.yaml", "schema_version 3", "install a newer evomerge"),
        ("build recipe.yaml --out out",),
    ),
    "recipe without base": Case(
        both(recipe_file, edit_recipe(members={})),
        ("recipe.yaml", "members", "'base'"),
        ("build recipe.yaml --out out",),
    ),
    "recipe without parts": Case(
        both(recipe_file, edit_recipe(parts=[])),
        ("recipe", "part"),
        ("build recipe.yaml --out out",),
    ),
}
