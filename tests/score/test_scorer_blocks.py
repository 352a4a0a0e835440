"""A document's score depends on the weights and on nothing else: not on its batch or block."""

from __future__ import annotations

import json

import pytest
from transformers import AutoModelForCausalLM

from evomerge.errors import CandidateError
from evomerge.score import cut_blocks
from evomerge.testing.scorers import check_scorer
from fixtures import make_tasks, save_model
from lm_eval_tasks import (
    check_equal,
    close,
    make_score_config,
    make_scorer,
    reference,
    score,
    search_documents,
)


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


def test_the_contract_of_scorers(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_choose"}, {"task": "toy_write"})
    scorer = make_scorer(config, model)
    documents = search_documents(scorer)
    check_scorer(scorer, [b for task, d in documents.items() for b in cut_blocks(task, d, 5)])


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
        for value, other in zip(ours.log_likelihoods, theirs.log_likelihoods, strict=True):
            assert close(value, other)


def test_tokens_that_are_shared_count_once(tasks_dir, model):
    config = make_score_config(tasks_dir, {"task": "toy_choose"}, {"task": "toy_write"})
    together = score(make_scorer(config, model))
    apart = score(make_scorer(config, model), 1)
    hflm = score(make_scorer(config.model_copy(update={"engine": "hflm"}), model))
    for task in ("toy_choose", "toy_write"):
        counts = [
            sum(row.num_tokens for row in rows if row.task == task)
            for rows in (together, apart, hflm)
        ]
        assert counts[0] <= counts[1] <= counts[2]
        assert counts[0] < counts[2] or task == "toy_write"
    # At most two tokens an answer, by the task.
    written = [row.num_answer_tokens for row in together if row.task == "toy_write"]
    assert set(written) <= {1, 2}
    assert all(row.num_answer_tokens is None for row in together if row.task == "toy_choose")


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
