"""Mistakes in tasks and what varies."""

from __future__ import annotations

from bad_input.mistakes import CHECK, Case, both, config, objectives, space, splits, task_text
from fixtures import save_model

CASES = {
    "unknown task": Case(
        objectives({"task": "toy_chose"}), ("no task 'toy_chose'", "include_path"), CHECK
    ),
    "unknown metric": Case(
        objectives({"task": "toy_choose", "metric": "accuracy"}),
        ("'toy_choose'", "no metric 'accuracy'", "valid: acc"),
    ),
    "unknown filter": Case(
        objectives({"task": "toy_choose", "filter": "some"}),
        ("'toy_choose'", "no filter 'some'", "valid: none"),
    ),
    "an objective twice": Case(
        objectives({"task": "toy_choose"}, {"task": "toy_choose"}), ("'toy_choose'", "twice")
    ),
    "no preference": Case(
        objectives({"task": "toy_choose", "preference": 0}),
        ("preference 0"),
        line="score:",
    ),
    "no objectives": Case(
        objectives(), ("score.objectives", "at least 1 item"), line="objectives:"
    ),
    "include_path is missing": Case(
        config(score={"include_path": ["task"]}),
        ("score.include_path", "'task'", "/task)"),
    ),
    "task data are missing": Case(
        lambda folder: (folder / "tasks/write.jsonl").unlink(), ("'toy_write'", "write.jsonl")
    ),
    "task data are damaged": Case(
        lambda folder: (folder / "tasks/write.jsonl").write_text('{"question": "a'),
        ("'toy_write' cannot be loaded", "JSON parse error", "row 0"),
    ),
    "task file is no YAML": Case(
        lambda folder: (folder / "tasks/toy_write.yaml").write_text("task: [toy_write\n"),
        ("tasks/toy_write.yaml:2: not YAML",),
        CHECK,
    ),
    "task file is no task": Case(
        lambda folder: (folder / "tasks/toy_write.yaml").write_text(
            (folder / "tasks/toy_write.yaml").read_text().replace("generate_until", "guess")
        ),
        ("'toy_write'", "guess"),
    ),
    "task functions need a package": Case(
        both(
            task_text("doc_to_text: '{{question}}'", "doc_to_text: !function extra.text"),
            lambda folder: (folder / "tasks/extra.py").write_text("import not_installed\n"),
            config(score={"allow_code": ["tasks"]}),
        ),
        ("'toy_write' cannot be loaded", "No module named 'not_installed'"),
    ),
    "task functions that nobody allowed": Case(
        both(
            task_text("doc_to_text: '{{question}}'", "doc_to_text: !function extra.text"),
            lambda folder: (folder / "tasks/extra.py").write_text("raise SystemExit\n"),
        ),
        ("toy_write.yaml:", "'toy_write' runs the function extra.text", "score.allow_code"),
    ),
    "a filter of more answers than there are": Case(
        task_text(
            "task: toy_write",
            "task: toy_write\nrepeats: 2\nfilter_list:\n- name: first\n"
            "  filter: [{function: take_first_k, k: 3}, {function: take_first}]",
        ),
        ("'toy_write'", "filter 'first' fails", "Need at least 3 responses"),
    ),
    "unknown aggregation": Case(
        task_text("aggregation: mean", "aggregation: average"),
        ("'toy_write'", "'exact_match'", "aggregation", "valid: a !function", "mean"),
    ),
    "an aggregation that fails": Case(
        both(
            task_text("aggregation: mean", "aggregation: !function extra.gather"),
            lambda folder: (folder / "tasks/extra.py").write_text(
                "def gather(items):\n    import not_installed\n"
            ),
            config(score={"allow_code": ["tasks"]}),
        ),
        ("'toy_write'", "'exact_match' cannot be aggregated", "No module named 'not_installed'"),
    ),
    "no chat template": Case(
        config(score={"apply_chat_template": True}), ("score.apply_chat_template", "no chat templ")
    ),
    "too few documents": Case(
        splits(holdout=30),
        ("'toy_choose'", "40 documents", "need 50", "score.splits"),
    ),
    "too few examples": Case(
        config(score={"num_fewshot": 2}),
        ("'toy_choose'", "2 examples", "0 over", "score.splits"),
    ),
    "unknown group_by": Case(
        splits(group_by="story"), ("'toy_choose'", "no field 'story'", "question, choices, label")
    ),
    # What varies.
    "weights of both signs": Case(
        space(method={"kind": "linear"}, vary={"weight": {"low": -1.0, "high": 1.0}}),
        ("space.vary.weight", "-1.0 to 1.0", "normalize: false"),
    ),
    "range upside down": Case(
        space(vary={"weight": {"low": 1.0, "high": 0.0}}),
        ("space.vary.weight", "below high"),
        line="weight:",
    ),
    "density of two": Case(
        space(method={"kind": "ties"}, vary={"density": {"low": 0.0, "high": 2.0}}),
        ("space.vary.density", "0.0 to 2.0", "range"),
    ),
    "unknown parameter": Case(
        space(vary={"weigth": {}}), ("space.vary", "'weigth'", "did you mean 'weight'?")
    ),
    "nothing varies": Case(space(vary={}), ("space", "nothing varies", "space.vary")),
    "more groups than layers": Case(space(groups=4), ("space.groups: 4", "3 layers", "1 to 3")),
    "unknown groups": Case(space(groups="layers"), ("space.groups", "'layers'"), line="groups:"),
    "unknown expert": Case(
        space(experts=["expert2"]),
        ("space.experts", "'expert2'", "did you mean 'expert"),
    ),
    "slerp of three": Case(
        both(
            lambda folder: save_model(folder / "pool/expert2", 3),
            config(
                pool={"experts": ["pool/expert0", "pool/expert1", "pool/expert2"]},
                space={"method": {"kind": "slerp"}},
            ),
        ),
        ("slerp", "exactly 2", "3 experts", "space.experts"),
    ),
    "start_from is missing": Case(
        config(search={"start_from": ["nothing.yaml"]}), ("nothing.yaml", "cannot read")
    ),
    "start_from names another model": Case(
        both(
            lambda folder: (folder / "merge.yaml").write_text(
                "{merge_method: passthrough, models: [{model: pool/nothing}]}"
            ),
            config(search={"start_from": ["merge.yaml"]}),
        ),
        ("merge.yaml: model 'pool/nothing' is not in the pool",),
    ),
}
