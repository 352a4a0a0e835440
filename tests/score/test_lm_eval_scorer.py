"""Scores are lm-eval's own: document by document, and in the mean with its standard error."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from fixtures import make_tasks, make_tokenizer, save_model
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

from evomerge.errors import CandidateError, InputError
from evomerge.score import LmEvalScorer, ScoreConfig, TaskSet, cut_blocks, mean, moments_of

BATCH_TOKENS = 200
GREEDY = {"until": ["\n"], "max_gen_toks": 2, "do_sample": False}
MEAN = {"aggregation": "mean", "higher_is_better": True}
REGEX = {"function": "regex", "regex_pattern": "([a-h])"}
FIRST = {"function": "take_first"}
WRITE = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "write.jsonl"}},
    "test_split": "test",
    "target_delimiter": "",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
}
CHOOSE = {
    **WRITE,
    "dataset_kwargs": {"data_files": {"test": "choose.jsonl"}},
    "output_type": "multiple_choice",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "label",
}
MORE_TASKS = {
    # Mutual information asks for each choice without its question as well.
    "toy_information": {
        **CHOOSE,
        "metric_list": [{"metric": m, **MEAN} for m in ("acc", "acc_norm", "acc_mutual_info")],
    },
    "toy_counts": {**CHOOSE, "metric_list": [{"metric": "acc", **MEAN}, {"metric": "brier_score"}]},
    "toy_likely": {
        **WRITE,
        "output_type": "loglikelihood",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", **MEAN},
        ],
    },
    "toy_rolling": {
        **WRITE,
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
    "toy_filters": {
        **WRITE,
        "output_type": "generate_until",
        "generation_kwargs": GREEDY,
        "filter_list": [
            {"name": "strict", "filter": [FIRST]},
            {"name": "letter", "filter": [REGEX, FIRST]},
        ],
        "metric_list": [{"metric": "exact_match", **MEAN}],
    },
    "toy_repeats": {
        **WRITE,
        "output_type": "generate_until",
        "repeats": 3,
        "generation_kwargs": {**GREEDY, "do_sample": True, "temperature": 1.0},
        "filter_list": [
            {"name": "vote", "filter": [REGEX, {"function": "majority_vote"}, FIRST]},
            {"name": "once", "filter": [FIRST]},
        ],
        "metric_list": [{"metric": "exact_match", **MEAN}],
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("model"), 0)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory, model) -> Path:
    """Tasks; every second answer is what the model writes, so that half of them match."""
    folder = make_tasks(tmp_path_factory.mktemp("tasks"))
    for name, task in MORE_TASKS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **task}))
    rows = [json.loads(line) for line in (folder / "write.jsonl").read_text().splitlines()]
    tokenizer = make_tokenizer()
    for row in rows[::2]:
        ids = tokenizer(row["question"], return_tensors="pt")["input_ids"]
        written = model.generate(ids, do_sample=False, max_new_tokens=2)[0, ids.shape[1] :]
        text = tokenizer.decode(written, skip_special_tokens=True).split("\n")[0]
        row["answer"] = text or row["answer"]
    (folder / "write.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_score_config(tasks_dir: Path, *objectives: dict, **changes) -> ScoreConfig:
    values = {
        "objectives": list(objectives),
        "splits": {"search": 12, "validation": 8, "holdout": 8},
        "include_path": [str(tasks_dir)],
    }
    return ScoreConfig.model_validate(values | changes)


def make_scorer(config: ScoreConfig, model, batch_tokens: int = BATCH_TOKENS) -> LmEvalScorer:
    tasks = TaskSet(config, Path())
    return LmEvalScorer(config, tasks, tasks.draw_splits(), model, make_tokenizer(), batch_tokens)


def search_documents(scorer: LmEvalScorer) -> dict[str, tuple[int, ...]]:
    splits = scorer.tasks.draw_splits()
    return {task: by_split["search"] for task, by_split in splits.items()}


def score(scorer: LmEvalScorer, block_documents: int = 1000):
    rows = []
    for task, documents in search_documents(scorer).items():
        rows += scorer.score(cut_blocks(task, documents, block_documents))
    return rows


def reference(config: ScoreConfig, model, batch_size: int = 1):
    """`lm_eval.evaluate` on the same documents, with tasks of its own."""
    tasks = TaskSet(config, Path())
    splits = tasks.draw_splits()
    tasks.reserve_examples(splits)
    for task in tasks.tasks.values():
        task.set_fewshot_seed(config.fewshot_seed)
    lm = HFLM(
        pretrained=model,
        tokenizer=make_tokenizer(),
        batch_size=batch_size,
        softmax_dtype="float32",
    )
    return evaluate(
        lm,
        {"tasks": tasks.tasks, "groups": {}, "group_map": {}},
        samples={task: list(by_split["search"]) for task, by_split in splits.items()},
        # No mean of ours is bootstrapped; lm-eval divides by zero with one round of perplexity.
        bootstrap_iters=2,
    )


def close(ours: float, theirs: float) -> bool:
    """Within what the same model differs by between batch sizes in float32."""
    return abs(ours - theirs) <= max(1e-4, 1e-6 * abs(theirs))


def check_equal(scorer: LmEvalScorer, rows, expected) -> None:
    """Each objective's rows against lm-eval's samples and aggregates."""
    for objective in scorer.tasks.objectives:
        ours = [row for row in rows if row.task == objective.task]
        samples = expected["samples"][objective.task]
        theirs = [sample for sample in samples if sample["filter"] == objective.filter]
        assert len(ours) == len(theirs) == 12
        assert [row.document for row in ours] == [sample["doc_id"] for sample in theirs]
        for row, sample in zip(ours, theirs, strict=True):
            assert row.metrics[objective.column] == float(sample[objective.metric])
            answers = [responses[0] for responses in sample["resps"]]
            if isinstance(answers[0], str):
                assert row.text == answers[0]
            else:
                assert len(row.log_likelihoods) == len(answers)
                for value, answer in zip(row.log_likelihoods, answers, strict=True):
                    assert close(value, answer[0])
        estimate = mean([row.metrics[objective.column] for row in ours])
        results = expected["results"][objective.task]
        suffix = f",{objective.filter}"
        assert estimate.value == pytest.approx(results[objective.metric + suffix], abs=1e-12)
        assert estimate.standard_error == pytest.approx(
            results[f"{objective.metric}_stderr{suffix}"], abs=1e-12
        )


def test_choices_and_generations_are_lm_evals(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_choose"}, {"task": "toy_write"})
    scorer = make_scorer(config, model)
    rows = score(scorer)
    check_equal(scorer, rows, reference(config, model))
    # The comparison would prove nothing if every document scored the same.
    for objective in scorer.tasks.objectives:
        values = {row.metrics[objective.metric] for row in rows if row.task == objective.task}
        assert values == {0.0, 1.0}
    assert len({row.text for row in rows}) > 4
    assert all(row.num_tokens > 0 for row in rows)


def test_scoring_prints_nothing(tasks_dir, model, capfd):
    entries = [{"task": name} for name in ("toy_choose", "toy_write")]
    scorer = make_scorer(make_score_config(tasks_dir, *entries, num_fewshot=1), model)
    capfd.readouterr()
    score(scorer)
    output = capfd.readouterr()
    assert output.out + output.err == ""


def test_several_metrics_and_empty_contexts_are_lm_evals(tasks_dir, model):
    names = ("acc", "acc_norm", "acc_mutual_info")
    entries = [{"task": "toy_information", "metric": name} for name in names]
    config = make_score_config(tasks_dir, *entries)
    scorer = make_scorer(config, model)
    assert [o.name for o in scorer.tasks.objectives] == [f"toy_information/{n}" for n in names]
    check_equal(scorer, score(scorer), reference(config, model))


def test_a_log_likelihood_task_is_lm_evals(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_likely", "metric": "acc"})
    scorer = make_scorer(config, model)
    rows = score(scorer)
    check_equal(scorer, rows, reference(config, model))
    assert all(len(row.log_likelihoods) == 1 for row in rows)


def test_several_filters_are_lm_evals(tasks_dir, model):
    entries = [{"task": "toy_filters", "filter": name} for name in ("strict", "letter")]
    config = make_score_config(tasks_dir, *entries)
    scorer = make_scorer(config, model)
    assert len({o.name for o in scorer.tasks.objectives}) == 2
    rows = score(scorer)
    check_equal(scorer, rows, reference(config, model))
    assert any(r.metrics["exact_match/strict"] != r.metrics["exact_match/letter"] for r in rows)
    moments = moments_of(rows, scorer.tasks.objectives)
    assert len({count_mean[:2] for count_mean in moments.values()}) == 2


def test_the_first_filter_is_the_default(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_filters"})
    scorer = make_scorer(config, model)
    assert scorer.tasks.objectives[0].filter == "strict"
    check_equal(scorer, score(scorer), reference(config, model))


def test_repeats_are_lm_evals(tasks_dir, model):
    entries = [{"task": "toy_repeats", "filter": name} for name in ("vote", "once")]
    config = make_score_config(tasks_dir, *entries)
    scorer = make_scorer(config, model)
    score(scorer)
    (requests,) = scorer._requests.values()
    # Sampling draws alike where seed and batches are alike.
    torch.manual_seed(3)
    rows = score(scorer)
    torch.manual_seed(3)
    expected = reference(config, model, requests.batch_size)
    assert {len(sample["resps"][0]) for sample in expected["samples"]["toy_repeats"]} == {3}
    check_equal(scorer, rows, expected)


@pytest.mark.parametrize("tasks", [("toy_choose",), ("toy_write",), ("toy_choose", "toy_write")])
def test_examples_in_prompts_are_lm_evals(tasks, tasks_dir, model):
    config = make_score_config(tasks_dir, *({"task": name} for name in tasks), num_fewshot=2)
    scorer = make_scorer(config, model)
    check_equal(scorer, score(scorer), reference(config, model))


def test_examples_come_from_no_split_and_depend_on_no_order(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_write"}, num_fewshot=2)
    scorer = make_scorer(config, model)
    splits = scorer.tasks.draw_splits()["toy_write"]
    documents = scorer.tasks.documents["toy_write"]
    used = {documents[index]["question"] for indices in splits.values() for index in indices}
    assert len(used) == 28

    def prompts(order: int) -> dict[int, str]:
        fresh = make_scorer(config, model)
        blocks = cut_blocks("toy_write", splits["search"], 5)
        for block in blocks[::order]:
            fresh.score([block])
        return {
            document: instances[0].args[0]
            for block in blocks
            for document, _, instances in fresh._requests[block].documents
        }

    forward = prompts(1)
    assert len(forward) == 12
    for document, prompt in forward.items():
        *examples, asked = re.findall(r"[a-h]{5}>", prompt)
        assert asked == documents[document]["question"]
        assert len(set(examples)) == 2
        assert not set(examples) & used
    assert len({tuple(re.findall(r"[a-h]{5}>", p)[:2]) for p in forward.values()}) > 1
    assert prompts(-1) == forward


def test_scores_follow_the_weights(tasks_dir, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path / "a", 0)).eval()
    config = make_score_config(tasks_dir, {"task": "toy_choose"}, {"task": "toy_write"})
    scorer = make_scorer(config, model)
    before = score(scorer)
    other = AutoModelForCausalLM.from_pretrained(save_model(tmp_path / "b", 0, base_seed=9))
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(other.state_dict())
    after = score(scorer)
    assert [row.log_likelihoods for row in after] != [row.log_likelihoods for row in before]
    assert [row.text for row in after] != [row.text for row in before]
    check_equal(scorer, after, reference(config, other.eval()))
    model.load_state_dict(original)
    assert score(scorer) == before


def test_how_blocks_are_grouped_changes_no_bit(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_choose"}, {"task": "toy_write"})
    scorer = make_scorer(config, model)
    blocks = [
        block
        for task, documents in search_documents(scorer).items()
        for block in cut_blocks(task, documents, 5)
    ]
    together = scorer.score(blocks)
    fresh = make_scorer(config, model)
    apart = {block: fresh.score([block]) for block in reversed(blocks)}
    assert [row for block in blocks for row in apart[block]] == together


@pytest.mark.parametrize(
    ("block_documents", "batch_tokens"), [(1, 200), (5, 40), (12, 1), (7, 9999)]
)
def test_block_and_batch_sizes_change_no_score(block_documents, batch_tokens, tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_choose"}, {"task": "toy_write"})
    expected = score(make_scorer(config, model))
    rows = score(make_scorer(config, model, batch_tokens), block_documents)
    assert len(rows) == len(expected) == 24
    for ours, theirs in zip(rows, expected, strict=True):
        assert (ours.task, ours.document) == (theirs.task, theirs.document)
        assert ours.metrics == theirs.metrics
        assert ours.text == theirs.text
        assert ours.num_tokens == theirs.num_tokens
        for value, other in zip(ours.log_likelihoods, theirs.log_likelihoods, strict=True):
            assert close(value, other)


@pytest.mark.parametrize("task", ["toy_choose", "toy_likely", "toy_rolling", "toy_write"])
def test_a_model_of_no_numbers_is_a_failed_candidate(task, tasks_dir, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path / "a", 0)).eval()
    config = make_score_config(
        tasks_dir, {"task": task, "metric": "acc" if task == "toy_likely" else None}
    )
    scorer = make_scorer(config, model)
    before = score(scorer)
    weight = model.model.layers[1].mlp.down_proj.weight.data
    kept = weight.clone()
    weight[0, 0] = float("nan")
    with pytest.raises(CandidateError, match="finite"):
        score(scorer)
    weight.copy_(kept)
    assert score(scorer) == before


def test_a_document_longer_than_the_model_is_flagged(tmp_path, model):
    folder = make_tasks(tmp_path / "tasks")
    path = folder / "write.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # The model has 64 positions, and a generation adds two.
    lengths = [61, 62, 63, 64, 65, 70]
    for row, length in zip(rows, lengths, strict=False):
        row["question"] = (row["question"] * 20)[: length - 1] + ">"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = make_score_config(folder, {"task": "toy_write"})
    scorer = make_scorer(config, model)
    (block,) = cut_blocks("toy_write", tuple(range(8)), 8)
    flagged = ["truncated" in row.flags for row in scorer.score([block])]
    assert flagged == [False, False, True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("toy_likely", "perplexity"),
        ("toy_rolling", "word_perplexity"),
        ("toy_counts", "brier_score"),
    ],
)
def test_metrics_of_all_documents_together_are_lm_evals(task, metric, tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": task, "metric": metric}, block_documents=5)
    scorer = make_scorer(config, model)
    documents = search_documents(scorer)[task]
    (block,) = scorer.tasks.cut_blocks(task, documents)
    estimate = mean([row.metrics[metric] for row in scorer.score([block])])
    results = reference(config, model)["results"][task]
    assert estimate.value == pytest.approx(results[f"{metric},none"], rel=1e-5)
    assert estimate.standard_error > 0
    assert estimate.num_documents == 12


def test_a_group_is_refused_with_what_to_do(tasks_dir, tmp_path):
    group = {"group": "toy_all", "task": ["toy_choose", "toy_write"]}
    (tmp_path / "group.yaml").write_text(yaml.safe_dump(group))
    config = make_score_config(
        tasks_dir, {"task": "toy_all"}, include_path=[str(tasks_dir), str(tmp_path)]
    )
    with pytest.raises(InputError, match="'toy_all' is a group of tasks; name its tasks"):
        TaskSet(config, Path())
