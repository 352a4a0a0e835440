"""Backends pass one contract, in this process and behind a pipe, and searches run on them."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import evomerge
from evomerge.backends import BACKENDS, HuggingFaceBackend
from evomerge.backends.config import Batching
from evomerge.backends.fit import find_batching
from evomerge.backends.hugging_face import open_resident
from evomerge.backends.sizes import TokenSize
from evomerge.config import load_config
from evomerge.errors import CandidateError, InputError
from evomerge.models.build import config_of
from evomerge.models.candidates import Candidates
from evomerge.pool import load_tokenizer
from evomerge.score.backend import Continuation
from evomerge.search import put_into_inbox, reopen_run
from evomerge.search.check import check
from evomerge.search.inbox import read_inbox
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.testing.backends import check_backend
from evomerge.workers import Job
from evomerge.workers.worker import MergeWorker
from families import family_config, make_random_pool
from fixtures import make_config, make_workspace
from piped_backend import PipedBackend, PipedEngine
from residents import path_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_random_pool(tmp_path_factory.mktemp("pool"), family_config("Llama"))


@pytest.fixture(scope="module", params=["trees", "plain", "piped"])
def backend(request, pool):
    if request.param == "piped":
        made = PipedBackend(PipedEngine(), pool)
        yield made
        made.close()
        assert not made.process.is_alive()
        return
    batching = find_batching(config_of(pool), 4, 256, is_on_gpu=False)
    if request.param == "plain":
        batching = batching.model_copy(update={"way": "plain"})
    yield open_resident(None, pool, CPU, load_tokenizer(pool), batching)


def test_the_contract_of_backends(backend, pool):
    candidates = Candidates(pool, CPU, backend)
    members = [recipes.member(pool, name) for name in ("base", "expert0", "expert1")]
    check_backend(backend, candidates.load, members, pool.base.config["vocab_size"])


@pytest.fixture
def piped():
    """The engine under its name, as a package's entry point would add it; those that it made."""
    made = []

    def make(*args):
        made.append(PipedBackend(*args))
        return made[-1]

    BACKENDS.add(PipedEngine, make)
    yield made
    del BACKENDS._entries["piped"]
    for backend in made:
        backend.close()


def test_the_weights_of_another_process_are_one_copy(pool):
    backend = PipedBackend(PipedEngine(), pool)
    try:
        places = {memory.name for memory in backend._memory.values()}
        maps = psutil.Process(backend.process.pid).memory_maps(grouped=False)
        mapped = {Path(each.path).name for each in maps if each.path.startswith("/dev/shm/")}
        assert places <= mapped
        ask = backend.log_likelihoods([Continuation((5, 6), (7, 8))])
        before = ask.answer()
        # No message: the process runs what lies in the memory that it shares.
        for tensor in backend.parameters().values():
            tensor.copy_(torch.randn_like(tensor))
        assert ask.answer() != before
        for tensor in backend.parameters().values():
            tensor.fill_(float("nan"))
        with pytest.raises(CandidateError, match="log-likelihood is not finite"):
            ask.answer()
    finally:
        backend.close()


def scores(run_dir: Path) -> dict[str, dict]:
    """Every result's moments, by candidate and split."""
    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    return {
        f"{event['data']['candidate']} {event['data']['split']}": event["data"]["blocks"]
        for event in events
        if event["kind"] == "result"
    }


def test_a_search_runs_on_a_backend_of_another_process(piped, tmp_path):
    make_workspace(tmp_path, workers={"kind": "inline"})
    found = {}
    for engine in ("own", "piped"):
        config = make_config(
            tmp_path, workers={"kind": "inline"}, score={**SCORE, "engine": engine}
        )
        result = evomerge.run(config, tmp_path / engine)
        found[engine] = scores(tmp_path / engine)
        assert result.best is not None
        assert len(piped) == (engine == "piped")
    assert len(found["own"]) > 10
    assert found["piped"] == found["own"]


SCORE = {
    "include_path": ["tasks"],
    "objectives": [{"task": "toy_choose"}, {"task": "toy_write"}],
    "splits": {"search": 10, "validation": 10, "holdout": 20},
}


def test_a_space_of_paths_needs_an_engine_that_runs_them(piped, tmp_path):
    config = make_workspace(tmp_path, score={**SCORE, "engine": "piped"})
    data = yaml.safe_load(config.read_text())
    paths = {"space": {"kind": "layer_order"}, "optimizer": {"kind": "nevergrad"}}
    config.write_text(yaml.safe_dump(data | paths))
    with pytest.raises(InputError, match="piped cannot run layers in another order.*own"):
        check(load_config(config), tmp_path)


def test_a_recipe_with_a_path_is_refused_at_every_door(piped, tmp_path):
    make_workspace(tmp_path, workers={"kind": "inline"})
    config = make_config(tmp_path, workers={"kind": "inline"}, score={**SCORE, "engine": "piped"})
    evomerge.run(config, tmp_path / "run")
    run = reopen_run(tmp_path / "run")
    try:
        recipe = path_recipe(run.setup.pool, "expert0", [("expert0", 0, 1.0)])
        with pytest.raises(InputError, match="piped cannot run layers in another order"):
            put_into_inbox(tmp_path / "run", recipe)
        (tmp_path / "run/inbox").mkdir(exist_ok=True)
        (tmp_path / "run/inbox/mine.yaml").write_text(recipe.to_yaml())
        ((name, problem),) = read_inbox(run)
        assert name == "mine.yaml"
        assert "piped cannot run layers in another order" in problem
        job = Job("c1", recipe.to_json(), "search", tuple(enumerate(run.setup.blocks("search"))), 1)
        with pytest.raises(CandidateError, match="piped cannot run layers in another order"):
            MergeWorker(run.setup.worker_spec(), CPU).evaluate(job)
    finally:
        run.close()


def test_an_engine_that_cuts_its_batches_itself_takes_no_size(piped, tmp_path):
    config = make_workspace(tmp_path, score={**SCORE, "engine": "piped"})
    lines = check(load_config(config), tmp_path).lines
    assert "engine: piped" in lines
    config = make_workspace(tmp_path, score={**SCORE, "engine": "piped", "batch_tokens": 64})
    with pytest.raises(InputError, match="batch_tokens: the engine piped cuts its batches itself"):
        check(load_config(config), tmp_path)


def test_longer_paths_leave_room_for_fewer_tokens(tmp_path):
    config = make_workspace(tmp_path, score=SCORE)
    data = yaml.safe_load(config.read_text())
    space = {"kind": "layer_order", "repetitions": 3}
    config.write_text(yaml.safe_dump(data | {"space": space, "optimizer": {"kind": "nevergrad"}}))
    setup = set_up(load_config(config), tmp_path)
    held = find_batching(config_of(setup.pool), 4, None, is_on_gpu=False)
    batching = setup.config.resolved.batching
    assert batching == held.model_copy(update={"cached": batching.cached})
    num_layers = setup.pool.base.config["num_hidden_layers"]
    size = TokenSize.of(config_of(setup.pool))
    hops = len(setup.spaces[0].to_recipe([1.0] * len(setup.spaces[0].dimensions)).path.hops)
    assert hops > num_layers
    assert batching.cached * size.cached(hops) <= held.cached * size.cached(num_layers)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("onw", "score.engine: no engine 'onw'; did you mean 'own'"),
        ({"kind": "own", "speed": 2}, "score.engine.speed: Extra inputs are not permitted"),
        ({"speed": 2}, "score.engine: expected a name, or settings with a kind; got"),
    ],
)
def test_a_wrong_engine_is_refused(engine, words, tmp_path):
    config = make_workspace(tmp_path, score={**SCORE, "engine": engine})
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        check(load_config(config), tmp_path)


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        (None, "engine: own, batches of 2,048 tokens, shared beginnings of prompts are run once"),
        ("hflm", "engine: hflm, batches of 2,048 tokens"),
    ],
)
def test_check_says_how_the_model_is_run(engine, line, tmp_path):
    config = make_workspace(tmp_path, score={**SCORE, "engine": engine})
    lines = check(load_config(config), tmp_path).lines
    assert any(found.startswith(line) for found in lines), lines


def test_a_checkpoint_is_scored_as_its_candidate_was(pool, tmp_path):
    """`HuggingFaceBackend` around any model: `promote` has no resident one."""
    batching = Batching(way="trees", tokens=64, cached=512, reads=64)
    resident = open_resident(None, pool, CPU, load_tokenizer(pool), batching)
    Candidates(pool, CPU, resident).load(recipes.member(pool, "expert0"))
    loaded = AutoModelForCausalLM.from_pretrained(pool["expert0"].model_dir)
    alone = HuggingFaceBackend(loaded, load_tokenizer(pool), batching)
    requests = [Continuation((5, 6, n), (7, 8)) for n in range(4, 9)]
    assert alone.log_likelihoods(requests).answer() == resident.log_likelihoods(requests).answer()
    assert set(alone.parameters()) == set(resident.parameters())
