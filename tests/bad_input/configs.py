"""Mistakes in the configuration itself: file, line, field, what is valid."""

from __future__ import annotations

from bad_input.mistakes import Case, config, no_config, nothing, objectives, space, text

CASES = {
    "unknown field": Case(
        text("name: toy\n", "name: toy\nworker:\n  num_actors: 1\n"),
        ("worker: unknown field", "did you mean 'workers'?"),
        line="worker:",
    ),
    "unknown field inside": Case(
        text("  num_actors: 1", "  num_actor: 1"),
        ("workers.num_actor: unknown field", "did you mean 'num_actors'?"),
        line="num_actor:",
    ),
    "unknown field of a method": Case(
        space(method={"kind": "linear", "normalise": True}),
        ("space.method.normalise: unknown field", "did you mean 'normalize'?"),
        line="normalise:",
    ),
    "wrong type": Case(
        text("candidates: 6", "candidates: many"),
        ("search.budget.candidates", "integer", "'many'"),
        line="candidates:",
    ),
    "misspelt section": Case(
        text("space:", "spacf:"), ("spacf: unknown field", "did you mean 'space'?"), line="spacf:"
    ),
    "missing section": Case(
        text("space:\n  kind: parameter\n  method:\n    kind: task_arithmetic\n", ""),
        ("space: this field is required", "or phases"),
    ),
    "no budget for no phase": Case(
        text("  budget:\n    candidates: 6\n", ""), ("search.budget: this field is required",)
    ),
    "many mistakes": Case(
        text("  search: 10\n", "  search: ten\n    x1: 1\n    x2: 2\n    x3: 3\n    x4: 4\n"),
        ("score.splits.search", "score.splits.x1", "3 more"),
    ),
    "no config file": Case(no_config, ("config.yaml", "cannot read", "No such file")),
    "a folder as config": Case(
        nothing, ("pool", "cannot read", "directory"), ("check pool", "search pool")
    ),
    "not YAML": Case(
        lambda folder: (folder / "config.yaml").write_text("name: [toy\nseed: 1\n"),
        ("config.yaml:2: not YAML",),
    ),
    "not a mapping": Case(
        lambda folder: (folder / "config.yaml").write_text("- toy\n"),
        ("config.yaml: expected a mapping", "pool, score, space"),
    ),
    "empty file": Case(
        lambda folder: (folder / "config.yaml").write_text(""),
        ("config.yaml: expected a mapping",),
    ),
    "not text": Case(
        lambda folder: (folder / "config.yaml").write_bytes(b"\xff\xfe\x00\x80"),
        ("config.yaml:1: cannot read",),
    ),
    "newer schema": Case(
        text("name: toy\n", "name: toy\nschema_version: 9\n"),
        ("schema_version 9", "reads up to 1", "install a newer evomerge"),
    ),
    "bad name": Case(
        text("name: toy\n", "name: ../toy\n"),
        ("name", "'../toy'"),
        line="name:",
    ),
    "unknown method": Case(
        space(method={"kind": "tie"}),
        ("space.method: no kind 'tie'", "did you mean 'ties'?"),
        line="method:",
    ),
    "unknown optimizer": Case(
        config(optimizer={"kind": "cmaes"}),
        ("optimizer: no kind 'cmaes'", "did you mean 'cma'?"),
        line="optimizer:",
    ),
    "unknown space": Case(
        space(kind="parameters"),
        ("space: no kind 'parameters'", "did you mean 'parameter'?"),
        line="space:",
    ),
    "zero budget": Case(
        config(search={"budget": {"candidates": 0}}),
        ("search.budget.candidates", "greater than 0", "got 0"),
        line="candidates:",
    ),
    "no budget": Case(
        config(search={"budget": {}}),
        ("search.budget", "no end", "candidates, documents, tokens, seconds"),
        line="budget:",
    ),
    "target is no budget": Case(
        config(search={"budget": {"target": 0.5}}), ("search.budget", "no end")
    ),
    "no experts": Case(
        config(pool={"experts": []}),
        ("pool.experts", "at least 1 item"),
        line="experts:",
    ),
    "tracking address": Case(
        config(record={"tracking_uri": "htp:/server:5000"}),
        ("record.tracking_uri", "'htp:/server:5000'", "http://HOST:PORT"),
        line="tracking_uri:",
    ),
    "set without value": Case(
        nothing,
        ("--set seed: expected a.b=value",),
        ("check config.yaml --set seed", "search config.yaml --set seed"),
    ),
    "set of no YAML": Case(
        nothing, ("--set 'seed=[1'", "not YAML"), ("check config.yaml --set seed=[1",)
    ),
    "set into a number": Case(
        nothing,
        ("--set seed.x=1: 'seed' is no section, it is 1",),
        ("check config.yaml --set seed.x=1",),
    ),
    "set into a list by name": Case(
        nothing,
        ("--set pool.experts.first=x: 'first' is no entry of a list of 2; valid: 0 to 1",),
        ("check config.yaml --set pool.experts.first=x",),
    ),
    "set beyond a list": Case(
        nothing,
        ("--set pool.experts.7.source=x: '7' is no entry of a list of 2; valid: 0 to 1",),
        ("check config.yaml --set pool.experts.7.source=x",),
    ),
    "set of an unknown field": Case(
        nothing,
        (
            "--set workers.actors=2: workers.actors: unknown field",
            "valid: kind, address, num_actors",
        ),
        ("check config.yaml --set workers.actors=2",),
    ),
    "set of a wrong value": Case(
        nothing,
        (
            "error: --set search.budget.candidates=abc: search.budget.candidates: expected an",
            "expected an integer",
            "got 'abc'",
        ),
        (
            "check config.yaml --set search.budget.candidates=abc",
            "search config.yaml --set seed=2 --set search.budget.candidates=abc",
        ),
    ),
    "set that makes another field wrong": Case(
        nothing,
        ("error: --set search.budget.candidates=null: search.budget: the search has no end; give",),
        ("check config.yaml --set search.budget.candidates=null --set seed=2",),
    ),
    "set into an unknown section": Case(
        nothing,
        ("error: --set serach.finalists=2: serach: unknown field; did you mean 'search'?",),
        ("check config.yaml --set serach.finalists=2",),
    ),
    "a preference of no number": Case(
        objectives({"task": "toy_choose", "preference": float("nan")}),
        ("score.objectives.0.preference", "got nan"),
        line="preference:",
    ),
    "a range without end": Case(
        space(vary={"weight": {"high": float("inf")}}),
        ("space.vary.weight", "finite number"),
        line="high:",
    ),
    "a budget without end": Case(
        config(search={"budget": {"seconds": float("inf")}}),
        ("search.budget.seconds", "finite number"),
        line="seconds:",
    ),
}
