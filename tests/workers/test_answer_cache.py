"""Answers that are kept: found again bit for bit, by the split that they are for, and no other."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.score import Answers
from evomerge.search import reopen_run
from evomerge.search.check import check
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.workers import Job
from evomerge.workers.answer_cache import AnswerCache
from evomerge.workers.worker import MergeWorker
from fixtures import make_config, make_workspace

ANSWERS = Answers([[(-1.25, True)], [(-0.1, False)]])
SCORE = {
    "include_path": ["tasks"],
    "objectives": [{"task": "toy_choose"}, {"task": "toy_write"}],
    "splits": {"search": 10, "validation": 10, "holdout": 20},
}


def results(run_dir: Path) -> list[dict]:
    """What the journal says of results, without times."""
    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    timed = ("build_s", "score_s", "part", "num_cached", "num_tokens", "num_answer_tokens")
    return [
        {name: value for name, value in event["data"].items() if name not in timed}
        for event in events
        if event["kind"] == "result"
    ]


def num_cached(run_dir: Path) -> list[int]:
    """By result: documents that were answered before."""
    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    return [e["data"].get("num_cached", 0) for e in events if e["kind"] == "result"]


def run(folder: Path, name: str, **score) -> Path:
    config = make_config(folder, workers={"kind": "inline"}, score={**SCORE, **score})
    evomerge.run(config, folder / name)
    return folder / name


def test_what_was_answered_before_is_not_asked_again(tmp_path):
    make_workspace(tmp_path)
    plain = run(tmp_path, "plain")
    first = run(tmp_path, "first", cache={"folder": "kept"})
    again = run(tmp_path, "again", cache={"folder": "kept"})
    assert results(plain) == results(first) == results(again)
    assert sum(num_cached(plain)) == 0
    documents = [result["num_documents"] for result in results(again)]
    # What a result takes over from another candidate asks nobody.
    asked = [n for n, r in zip(documents, results(again), strict=True) if "same_as" not in r]
    found = [
        n for n, r in zip(num_cached(again), results(again), strict=True) if "same_as" not in r
    ]
    assert found == asked
    # The folder stands beside the configuration, and the run's own names it whole.
    assert str(tmp_path / "kept") in (again / "config.yaml").read_text()


def test_other_weights_and_splits_are_asked(tmp_path):
    make_workspace(tmp_path)
    config = make_config(tmp_path, score={**SCORE, "cache": {"folder": "kept"}})
    setup = set_up(load_config(config), tmp_path)
    worker = MergeWorker(setup.worker_spec(), torch.device("cpu"))
    blocks = tuple(enumerate(setup.blocks("search")))

    def ask(name: str, split: str) -> int:
        recipe = recipes.member(setup.pool, name).to_json()
        return worker.evaluate(Job("c1", recipe, split, blocks, len(blocks))).num_cached

    assert ask("base", "search") == 0
    # The same documents, as if they were opened: what was kept of a search is no part of that.
    assert ask("base", "holdout") == 0
    assert ask("expert0", "search") == 0
    assert ask("base", "search") == ask("base", "holdout") == 20


def test_other_batches_are_asked(tmp_path):
    make_workspace(tmp_path)
    run(tmp_path, "first", cache={"folder": "kept"})
    whole = run(tmp_path, "tokens", cache={"folder": "kept"}, batch_tokens=64)
    assert sum(num_cached(whole)) == 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"rms_norm_eps": 0.1}),
        ("generation_config.json", {"repetition_penalty": 1.5}),
        ("tokenizer_config.json", {"eos_token": "a"}),
    ],
)
def test_other_files_of_the_base_are_asked(name, change, tmp_path):
    make_workspace(tmp_path)
    run(tmp_path, "first", cache={"folder": "kept"})
    for member in ("base", "expert0", "expert1"):
        path = tmp_path / "pool" / member / name
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    other = run(tmp_path, "other", cache={"folder": "kept"})
    assert sum(num_cached(other)) == 0


def test_lm_evals_own_engine_keeps_nothing(tmp_path):
    make_workspace(tmp_path)
    with pytest.raises(InputError, match=r"score.cache: .* hflm keeps no answers; .*engine: own"):
        run(tmp_path, "first", cache={"folder": "kept"}, engine="hflm")


def test_a_name_is_of_all_that_answers_depend_on(tmp_path):
    one = AnswerCache(tmp_path, 1 << 20, {"dtype": "float32"})
    other = AnswerCache(tmp_path, 1 << 20, {"dtype": "bfloat16"})
    keys = {
        one.key("recipe", "search", "asked"),
        one.key("recipe", "holdout", "asked"),
        one.key("other", "search", "asked"),
        one.key("recipe", "search", "others"),
        other.key("recipe", "search", "asked"),
    }
    assert len(keys) == 5


def test_answers_come_back_as_they_were(tmp_path):
    cache = AnswerCache(tmp_path, 1 << 20, {})
    key = cache.key("recipe", "search", "asked")
    assert cache.find(key) is None
    cache.keep(key, ANSWERS)
    assert cache.find(key) == ANSWERS
    texts = Answers([["a\nb", "\u3042"], [""]], [3, 0])
    cache.keep(key, texts)
    assert AnswerCache(tmp_path, 1 << 20, {}).find(key) == texts


@pytest.mark.parametrize("content", ["", "{", "[]", '{"answers": {}, "sha256": ""}'])
def test_a_broken_file_is_asked_again(content, tmp_path, caplog):
    cache = AnswerCache(tmp_path, 1 << 20, {})
    key = cache.key("recipe", "search", "asked")
    cache.keep(key, ANSWERS)
    (path,) = tmp_path.glob("*/*")
    path.write_text(content)
    assert cache.find(key) is None
    assert "score.cache" in caplog.text and str(path) in caplog.text
    cache.keep(key, ANSWERS)
    assert cache.find(key) == ANSWERS


def test_an_answer_under_another_name_is_none(tmp_path):
    cache = AnswerCache(tmp_path, 1 << 20, {})
    here, there = (cache.key(name, "search", "asked") for name in ("one", "other"))
    cache.keep(here, ANSWERS)
    cache._path(there).parent.mkdir(exist_ok=True)
    shutil.copy(cache._path(here), cache._path(there))
    assert cache.find(there) is None
    assert cache.find(here) == ANSWERS


def test_what_nobody_read_for_the_longest_goes_first(tmp_path):
    cache = AnswerCache(tmp_path, 1 << 20, {})
    keys = [cache.key(f"recipe{n}", "search", "asked") for n in range(20)]
    for age, key in enumerate(keys):
        cache.keep(key, ANSWERS)
        os.utime(cache._path(key), (1000 + age, 1000 + age))
    assert cache.find(keys[0]) == ANSWERS
    size = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    AnswerCache(tmp_path, size // 2, {})
    left = {key for key in keys if cache._path(key).exists()}
    assert keys[0] in left
    assert left - {keys[0]} == set(keys[len(keys) - len(left) + 1 :])
    assert 6 <= len(left) <= 10


def test_files_of_others_are_left(tmp_path):
    others = [tmp_path / "ab/notes.txt", tmp_path / "my/data.json", tmp_path / "abc/ab"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine" * 1000)
    cache = AnswerCache(tmp_path, 1 << 20, {})
    keys = [cache.key(f"recipe{n}", "search", "asked") for n in range(20)]
    for key in keys:
        cache.keep(key, ANSWERS)
    left = tmp_path / keys[0][:2] / f".{keys[0][2:]}.json.0123456789abcdef"
    left.write_text("cut off")
    os.utime(left, (1000, 1000))
    AnswerCache(tmp_path, 1000, {})
    assert all(path.exists() for path in others)
    assert not left.exists()
    assert 0 < sum(cache._path(key).exists() for key in keys) < 20


def test_several_write_and_prune_at_once(tmp_path):
    def work(seed: int) -> None:
        cache = AnswerCache(tmp_path, 4000, {})
        for number in range(200):
            key = cache.key(f"recipe{(number * 7 + seed) % 40}", "search", "asked")
            assert cache.find(key) in (None, ANSWERS)
            cache.keep(key, ANSWERS)
            if number % 20 == 0:
                cache.prune()

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(work, seed) for seed in range(4)]:
            future.result()
    assert not list(tmp_path.glob("*/.*"))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"score.cache.folder: .*file/kept cannot be created: Not a"
    ):
        AnswerCache(tmp_path / "file/kept", 1 << 20, {})
    make_workspace(tmp_path)
    config = make_config(tmp_path, score={**SCORE, "cache": {"folder": "file/kept"}})
    with pytest.raises(InputError, match=r"score.cache.folder: .*file/kept cannot be created"):
        check(load_config(config), tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_where_its_folder_is_not(tmp_path, caplog):
    make_workspace(tmp_path)
    ended = run(tmp_path, "ended", cache={"folder": "kept"})
    shutil.rmtree(tmp_path / "kept")
    (tmp_path / "kept").write_text("")
    reopened = reopen_run(ended)
    try:
        worker = MergeWorker(reopened.setup.worker_spec(), torch.device("cpu"))
    finally:
        reopened.close()
    assert worker.cache is None
    assert "kept cannot be created" in caplog.text


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path, caplog):
    cache = AnswerCache(tmp_path / "kept", 1 << 20, {})
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").write_text("")
    cache.keep(cache.key("recipe", "search", "asked"), ANSWERS)
    assert "cannot be written" in caplog.text
