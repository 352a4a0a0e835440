"""Documents of the training text: found, and what models gain from them told of."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import evomerge
from evomerge.choice.leaks import gain_on_marked
from evomerge.choice.table import final_table
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.record.report import markdown_table
from evomerge.score.leaks import longest_matches, words_of
from evomerge.search.check import check
from fixtures import make_config, make_workspace

SENTENCE = "one two three four five six seven eight nine ten eleven twelve"


def share_of(document: str, text: str, folder: Path, name: str = "text.txt") -> float:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return longest_matches([{"question": document}], [path]).get(0, 0.0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        (f"Before. {SENTENCE.upper()}! Behind.", 1.0),
        ("one two, three four\nfive six seven eight nine but then others", 9 / 12),
        ("one two three four five six seven and eight nine ten eleven twelve", 0.0),
        # The longest part counts, and not the sum of two.
        (
            "one two three four five six seven eight. x. five six seven eight nine ten eleven "
            "twelve",
            8 / 12,
        ),
        ("", 0.0),
    ],
)
def test_the_longest_part_that_stands_in_the_text(text, share, tmp_path):
    assert share_of(SENTENCE, text, tmp_path) == pytest.approx(share)


def test_short_documents_are_not_looked_for(tmp_path):
    assert share_of("one two three four five six seven", f"x {SENTENCE}", tmp_path) == 0.0


def test_letters_of_scripts_without_spaces_are_words(tmp_path):
    assert words_of("答えは4です。") == ["答", "え", "は", "4", "で", "す"]
    said = "答えは四です、とてもかんたんなもんだいでしたね"
    assert share_of(said, f"彼は「{said}」と", tmp_path) == 1.0
    assert share_of(said[:12], f"彼は「{said}」と", tmp_path) == 0.0
    assert words_of("ไทย ab") == ["ไ", "ท", "ย", "ab"]


def test_texts_within_json(tmp_path):
    rows = [{"text": "nothing"}, {"messages": [{"content": f"q: {SENTENCE}\nand"}]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert share_of(SENTENCE, lines, tmp_path, "text.jsonl") == 1.0
    assert share_of(SENTENCE, json.dumps(rows), tmp_path, "text.json") == 1.0
    text = "答えは四です、とてもかんたんなもんだいでしたね"
    assert share_of(text, json.dumps([text]), tmp_path, "a.json") == 1.0


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"{"])
def test_files_that_cannot_be_read(content, tmp_path):
    path = tmp_path / "text.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"score.training_text: .*text.jsonl cannot be read"):
        longest_matches([{"question": SENTENCE}], [path])


def test_the_gain_is_that_of_the_documents_that_are_marked():
    values = {n: 1.0 if n < 20 or n % 4 == 0 else 0.0 for n in range(60)}
    shares = dict.fromkeys(range(20), 0.9) | dict.fromkeys(range(20, 30), 0.3)
    gain = gain_on_marked(values, shares, higher_is_better=True)
    assert (gain.num_marked, gain.num_clean, gain.marked, gain.clean) == (20, 40, 1.0, 0.25)
    assert gain.gain == pytest.approx(0.75)
    assert gain.performance_gain == pytest.approx(sum(values.values()) / 60 - 0.25)
    assert 0.4 < gain.low < gain.gain < gain.high < 1.1
    worse = gain_on_marked(values, shares, higher_is_better=False)
    assert worse.gain < 0.0
    assert gain.distinguishable and gain.p_value < 0.01
    assert gain_on_marked(values, {1: 1.0}, higher_is_better=True) is None


@pytest.mark.parametrize("share_right", [0.5, 0.9])
def test_a_gain_is_found_by_chance_as_often_as_said(share_right):
    rng = random.Random(4)
    found = 0
    for _ in range(150):
        values = {n: float(rng.random() < share_right) for n in range(100)}
        shares = {n: rng.uniform(0.25, 1.0) for n in range(8)}
        gain = gain_on_marked(values, shares, higher_is_better=True)
        found += gain.distinguishable
    assert found <= 15


def test_a_leak_is_told_of(tmp_path: Path):
    """Answers that the model gives are right where the documents stand in the text."""
    make_workspace(tmp_path)
    rng = random.Random(1)
    rows, text = [], []
    for number in range(90):
        words = ["".join(rng.choice("abcdefgh") for _ in range(3)) for _ in range(9)]
        rows.append({"question": " ".join(words) + ">", "answer": "a"})
        if number % 2:
            text.append(f"exercise: {' '.join(words)}\n\n")
    (tmp_path / "tasks/write.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "trained.txt").write_text("".join(text))
    score = {
        "objectives": [{"task": "toy_write"}],
        "splits": {"search": 10, "validation": 20, "holdout": 50},
        "training_text": ["trained.txt"],
    }
    config = make_config(tmp_path, score=score, workers={"kind": "inline"})
    told = "\n".join(check(load_config(config), tmp_path).lines)
    assert "documents of task 'toy_write' share 8 words (20 letters" in told
    result = evomerge.run(config, tmp_path / "run")
    table = final_table(result.results)
    (entry,) = table["leaks"]
    leaked = {int(n) for n in result.results.state.started["leaks"]["toy_write"]}
    assert leaked <= set(range(1, 90, 2))
    holdout = result.results.state.started["splits"]["toy_write"]["holdout"]
    assert entry["num_leaked"] == len(leaked & set(holdout)) > 10
    gain = entry["models"][table["chosen"]]
    assert gain["num_marked"] + gain["num_clean"] == 50
    words = markdown_table(table)
    assert f"leak, toy_write: {table['chosen']} scores " in words
    assert "% or more stands in the training text in one piece, and " in words
    assert ", p = 0." in words
    assert evomerge.resume(tmp_path / "run").results.state.started["leaks"]
