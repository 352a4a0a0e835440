"""Documents that say nearly the same share a split, within a task and between tasks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import evomerge
from evomerge.choice.table import final_table
from evomerge.config import load_config
from evomerge.record.report import markdown_table
from evomerge.score.config import SPLITS, SplitsConfig
from evomerge.score.duplicates import near_duplicates, text_of
from evomerge.score.splits import draw_splits, group_documents
from evomerge.search.check import check
from fixtures import make_config, make_workspace

QUESTION = "A baker sells sixteen loaves a day and eats three; how many are left for the market?"
NEAR = {
    "a letter": QUESTION.replace("loaves", "loavez"),
    "case and marks": QUESTION.upper().replace(";", "  -- ").rstrip("?"),
    "a word": QUESTION.replace("market", "fair"),
    "width": QUESTION.replace("A baker", "Ａ ｂａｋｅｒ"),
}
FAR = {
    "another question": "Which gas do plants take up from the air when the sun shines on them?",
    "other numbers": QUESTION.replace("sixteen", "17"),
    "half of it": QUESTION[: len(QUESTION) // 2],
}


@pytest.mark.parametrize("name", NEAR)
def test_what_says_nearly_the_same(name):
    assert near_duplicates([FAR["another question"], QUESTION, NEAR[name]]) == [[1, 2]]


@pytest.mark.parametrize("name", FAR)
def test_what_does_not(name):
    assert near_duplicates([QUESTION, FAR[name]]) == []


def test_other_numbers_ask_something_else():
    texts = [f"How much is {n} and {m}, if {n} is taken twice?" for n in range(9) for m in range(9)]
    assert near_duplicates(texts) == []
    assert near_duplicates([texts[3], texts[3].replace("twice", "twicE ")]) == [[0, 1]]


def test_short_texts_are_the_same_or_not():
    assert near_duplicates(["ab", "AB ", "ac", "", ""]) == [[0, 1]]


@pytest.mark.parametrize("pair", [("3 + 4 =", "3 - 4 ="), ("3 * 4 =", "3 / 4 =")])
def test_other_signs_ask_something_else(pair):
    before = "Work out what comes of these two numbers here: "
    assert near_duplicates([before + pair[0], before + pair[1], before + pair[0]]) == [[0, 2]]


def boolean(rng: random.Random) -> str:
    words = [rng.choice(("True", "False")) for _ in range(4)]
    signs = [rng.choice((" and ", " or ", " and not ", " or not ")) for _ in range(3)]
    return (
        "not ( "
        + words[0]
        + "".join(s + w for s, w in zip(signs, words[1:], strict=True))
        + " ) is"
    )


def brackets(rng: random.Random) -> str:
    shown = " ".join(rng.choice("[](){}<>") for _ in range(14))
    before = "Complete the rest of the sequence, making sure that the parentheses are closed"
    return f"{before} properly. Input: {shown}"


def swaps(rng: random.Random) -> str:
    names, colors = ["Alice", "Bob", "Claire"], ["yellow", "blue", "pink", "orange", "green"]
    parts = [f"{name} has a {rng.choice(colors)} ball" for name in names]
    for _ in range(3):
        parts.append("then {} and {} swap balls".format(*rng.sample(names, 2)))
    return f"{', '.join(parts)}. At the end of the game, {rng.choice(names)} has the"


def moral(rng: random.Random) -> str:
    asked = "For which of these two scenarios does the main character do something clearly wrong?"
    bank = [f"I {words(rng, 1)} my {words(random.Random(n), 3)} {n % 7}." for n in range(40)]
    return f"{asked} Scenario 1 | {rng.choice(bank)} Scenario 2 | {rng.choice(bank)}"


@pytest.mark.parametrize("write", [boolean, brackets, swaps, moral])
def test_what_a_template_says_is_not_alike(write):
    """Tasks in the shape of BBH's and MMLU's, whose documents differ in a few words only."""
    rng = random.Random(3)
    texts = list(dict.fromkeys(write(rng) for _ in range(250)))
    groups = near_duplicates(texts)
    assert sum(map(len, groups)) < 0.1 * len(texts)


def test_what_is_asked_counts_and_not_what_a_file_says_beside_it(tmp_path: Path):
    make_workspace(tmp_path)
    rng = random.Random(8)
    rows = []
    for number in range(40):
        question = words(rng, 5)[:30]
        for page, text in enumerate((question, question[:14] + "Q" + question[15:])):
            row = {"question": f"{text}>", "choices": ["ab", "cd", "ef"], "label": page}
            rows.append(row | {"source": f"page-{number}{page}", "number": page})
    path = tmp_path / "tasks/choose.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {"search": 10, "validation": 10, "holdout": 20}
    score = {"objectives": [{"task": "toy_choose"}], "splits": splits}
    lines = check(load_config(make_config(tmp_path, score=score)), tmp_path).lines
    assert any(line.endswith("share a split: 80 of toy_choose") for line in lines)


def test_what_says_the_same_shares_a_split_whatever_its_field_says():
    documents = {"a": [{"question": QUESTION, "pair": n} for n in range(3)]}
    documents["a"].append({"question": FAR["another question"], "pair": 2})
    sizes = {"search": 1, "validation": 1, "holdout": 1, "group_by": "pair"}
    for kind, expected in (("near", [4]), (None, [1, 1, 2])):
        groups = group_documents(documents, SplitsConfig(**sizes, duplicates=kind))
        assert sorted(map(len, groups.members)) == expected


def test_neighbours_of_neighbours_are_of_one_group():
    words = QUESTION.split()
    chain = [QUESTION]
    for place in (2, 6, 10):
        words[place] = "changed"
        chain.append(" ".join(words))
    assert near_duplicates(chain) == [[0, 1, 2, 3]]


def test_a_documents_own_name_says_nothing():
    first = {"id": "x-1", "question": QUESTION, "choices": ["one", "two"], "pairID": "7"}
    second = {"id": "x-2", "question": NEAR["a letter"], "choices": ["one", "two"], "pairID": "8"}
    assert near_duplicates([text_of(first), text_of(second)]) == [[0, 1]]
    assert text_of({"question_id": "a", "idx": 3, "paid": "b", "grid": "c"}) == "b c"


def words(rng: random.Random, count: int) -> str:
    letters = "abcdefghijklmnop"
    return " ".join(
        "".join(rng.choice(letters) for _ in range(rng.randint(3, 8))) for _ in range(count)
    )


def test_most_pairs_are_found_among_many():
    rng = random.Random(5)
    texts = [words(rng, 12) for _ in range(1500)]
    planted = [text[:20] + "#" + text[21:] for text in texts[:100]]
    found = near_duplicates(texts + planted)
    assert found == [[n, 1500 + n] for n in range(100)]


def split_of(splits, task: str, number: int) -> str | None:
    return next((s for s in SPLITS if number in splits[task][s]), None)


def test_they_share_a_split_within_and_between_tasks():
    rng = random.Random(2)
    rows = [{"question": words(rng, 12)} for _ in range(60)]
    changed = [{"question": row["question"][:9] + "Q" + row["question"][10:]} for row in rows]
    documents = {"a": rows + changed[:20], "b": changed[20:] + [{"question": words(rng, 12)}] * 2}
    near = SplitsConfig(search=10, validation=10, holdout=10, duplicates="near")
    for seed in range(5):
        config = near.model_copy(update={"seed": seed})
        splits = draw_splits(documents, config)
        for n in range(20):
            both = {split_of(splits, "a", n), split_of(splits, "a", 60 + n)} - {None}
            assert len(both) <= 1
        for n in range(20, 60):
            both = {split_of(splits, "a", n), split_of(splits, "b", n - 20)} - {None}
            assert len(both) <= 1
        equal = draw_splits(documents, config.model_copy(update={"duplicates": "equal"}))
        torn = [n for n in range(20, 60) if _is_torn(equal, n)]
        assert len(torn) > 5
    assert group_documents(documents, near).num_near == {"a": 80, "b": 42}


def _is_torn(splits, n: int) -> bool:
    return len({split_of(splits, "a", n), split_of(splits, "b", n - 20)} - {None}) == 2


def test_examples_are_no_near_duplicates():
    rng = random.Random(3)
    rows = [{"question": words(rng, 12)} for _ in range(40)]
    shown = [{"question": row["question"].replace("a", "A") + "!"} for row in rows[:8]]
    config = SplitsConfig(search=10, validation=10, holdout=10, duplicates="near")
    splits = draw_splits({"a": rows}, config, {"a": shown})
    drawn = {n for numbers in splits["a"].values() for n in numbers}
    assert not drawn & set(range(8))


def test_without_near_duplicates_splits_are_as_they_were():
    rng = random.Random(4)
    documents = {"a": [{"question": words(rng, 12)} for _ in range(60)]}
    sizes = {"search": 10, "validation": 10, "holdout": 10}
    draws = {
        kind: draw_splits(documents, SplitsConfig(**sizes, duplicates=kind))
        for kind in (None, "equal", "near")
    }
    assert draws[None] == draws["equal"] == draws["near"]


def test_they_are_told_of(tmp_path: Path):
    """One letter changed; and a translation, which agrees in a field."""
    make_workspace(tmp_path)
    rng = random.Random(6)
    rows = []
    for number in range(60):
        # The model reads 64 tokens.
        question = words(rng, 5)[:30]
        choices = ["ab", "cd", "ef"]
        for text in (question, question[:14] + "Q" + question[15:], question[::-1]):
            rows.append({"question": f"{text}>", "choices": choices, "label": 0, "group": number})
    path = tmp_path / "tasks/choose.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {"search": 10, "validation": 10, "holdout": 20, "group_by": "group"}
    score = {"objectives": [{"task": "toy_choose"}], "splits": splits}
    config = make_config(tmp_path, score=score, workers={"kind": "inline"})
    near = "near-duplicates: documents that say nearly the same share a split: 120 of toy_choose"
    group = "group_by: documents that agree in 'group' share a split: 60 groups of two or more"
    lines = check(load_config(config), tmp_path).lines
    assert near in lines and group in lines
    result = evomerge.run(config, tmp_path / "run")
    told = markdown_table(final_table(result.results))
    assert near in told and group in told
    drawn = result.results.state.started["splits"]["toy_choose"]
    groups = {split: {rows[n]["group"] for n in numbers} for split, numbers in drawn.items()}
    assert not groups["search"] & groups["validation"]
    assert not (groups["search"] | groups["validation"]) & groups["holdout"]
