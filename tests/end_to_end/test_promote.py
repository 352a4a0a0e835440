"""A candidate promoted on real components: written, checked, its holdout opened, registered."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError, NotNowError
from evomerge.files import sha256_file
from evomerge.journal import Event, Journal, read_journal
from evomerge.models.weights import stored_weights_sha256
from evomerge.pool import open_pool
from evomerge.promote import promote, promote_pick
from evomerge.recipe import Hop, LayerPath, Recipe, read_recipe
from evomerge.record.picks import picked, without_head
from evomerge.search import Result
from evomerge.search.alone import score_model


@pytest.fixture(scope="module")
def finished(pool_and_tasks, empty_store, tmp_path_factory):
    """A run with its record in MLflow; e0000 is a path that repeats a layer."""
    from fixtures import make_config

    folder = tmp_path_factory.mktemp("promote")
    for name in ("pool", "tasks"):
        shutil.copytree(pool_and_tasks / name, folder / name)
    pool = open_pool(load_config(make_config(folder)).pool, folder)
    hops = (("expert0", 0, 1.0), ("expert1", 1, 0.9), ("expert1", 1, 1.0), ("base", 2, 1.0))
    path = LayerPath(outer="expert0", hops=[Hop(model=m, layer=n, scale=s) for m, n, s in hops])
    (folder / "path.yaml").write_text(Recipe(members=pool.members, path=path).to_yaml())
    config = make_config(
        folder,
        workers={"kind": "inline"},
        search={"budget": {"candidates": 4}, "finalists": 2, "start_from": ["path.yaml"]},
        record={"enabled": True},
    )
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")
    run_dir = evomerge.run(config, folder / "runs" / "toy").run_dir
    # Without what only this pool can start from, for `evomerge score`.
    make_config(folder)
    return run_dir


@pytest.fixture
def run_dir(finished):
    """The run as it was before the test; the store keeps what tests before this one wrote."""
    kept_dir = finished.with_name("kept")
    shutil.copytree(finished, kept_dir)
    yield finished
    shutil.rmtree(finished)
    kept_dir.rename(finished)


@pytest.fixture
def client(finished):
    store = f"sqlite:///{finished.parent / 'mlflow.db'}"
    return MlflowClient(store, store)


def store_of(run_dir):
    return f"sqlite:///{run_dir.parent / 'mlflow.db'}"


def child(client, candidate):
    experiment = client.get_experiment_by_name("toy")
    (run,) = client.search_runs(
        [experiment.experiment_id], f"tags.`evomerge.candidate` = '{candidate}'"
    )
    return run


def versions(client, model_dir):
    found = client.search_model_versions("name = 'toy'")
    return [v for v in found if v.tags["evomerge.model_dir"] == str(model_dir)]


def state(run_dir):
    return Result(run_dir).results.state


def chosen_of(run_dir):
    """A candidate that has every score, so that no workers start."""
    return state(run_dir).decided["chosen"]


def other_finalist(run_dir):
    """A merged candidate with validation scores whose holdout is not opened."""
    now = state(run_dir)
    return next(
        c.id
        for c in now.of_origin("asked")
        if c.scores("validation") and c.id not in now.holdout_opened
    )


def files(folder):
    return {
        p.name: (p.stat().st_mtime_ns, p.stat().st_ino, sha256_file(p)) for p in folder.iterdir()
    }


def rewrite(run_dir, change):
    """Write the journal again, whole and with right checksums, with its results changed."""
    events, _ = read_journal(run_dir / "journal.jsonl")
    for event in events:
        if event.kind == "result":
            change(event.data)
    lines = [Event(e.seq, e.time, e.kind, e.data).to_line() for e in events]
    (run_dir / "journal.jsonl").write_text("".join(lines))


@contextmanager
def nothing_comes_of_it(run_dir, client, candidate, message):
    before = {v.version for v in client.search_model_versions()}
    with pytest.raises(InputError, match=message):
        yield
    assert not (run_dir / "promoted").exists() or not list((run_dir / "promoted").iterdir())
    assert candidate not in state(run_dir).holdout_opened
    assert {v.version for v in client.search_model_versions()} == before


def test_promoting_writes_checks_opens_the_holdout_and_registers_once(run_dir, client):
    candidates = state(run_dir).of_origin("asked")
    candidate = next(c.id for c in candidates if c.scores("validation") is None)
    # Given up in a promotion before this one: it is tried again.
    journal = Journal(run_dir / "journal.jsonl")
    attempt = {"reason": "no memory", "attempt": 3, "final": True}
    journal.append("failed", candidate=candidate, split="validation", **attempt)
    journal.append("failed", candidate=candidate, split="holdout", **attempt)
    journal.close()
    assert state(run_dir).candidates[candidate].failed == "no memory"
    promotion = promote(run_dir, candidate)
    model_dir = run_dir / "promoted" / candidate
    assert promotion.model_dir == model_dir and promotion.is_exact

    # What the worker had in memory is what lies on disk.
    now = state(run_dir)
    assert now.candidates[candidate].failed is None and now.num_failed == 0
    measured = now.candidates[candidate].measured["validation"]
    assert measured.device == "cpu"
    assert measured.weights_sha256 == promotion.weights_sha256 == stored_weights_sha256(model_dir)
    assert read_recipe(model_dir / "recipe.yaml").sha256 == promotion.recipe_sha256
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    for split in ("search", "validation"):
        scores = score_model(str(model_dir), run_dir.parents[1] / "config.yaml", split)
        for name, estimate in now.candidates[candidate].scores(split).items():
            assert scores[name]["value"] == estimate.value
    events = read_journal(run_dir / "journal.jsonl")[0]
    opened = [e.data for e in events if e.kind == "holdout_opened"]
    assert opened[-1] == {"candidates": [candidate], "why": "promoted"}
    assert promotion.holdout == now.candidates[candidate].scores("holdout")
    card = (model_dir / "README.md").read_text()
    for estimate in promotion.holdout.values():
        assert f"| holdout | {estimate.value:.4f} |" in card

    (version,) = versions(client, model_dir)
    assert promotion.model_version == f"toy/{version.version}"
    assert client.get_model_version_by_alias("toy", "promoted").version == version.version
    assert version.tags["evomerge.recipe_sha256"] == promotion.recipe_sha256
    assert version.tags["evomerge.rescored"] == "equal"
    assert version.description == without_head(card)[:5000]
    assert version.description.startswith("# toy: ")
    mlflow_run = child(client, candidate)
    tags = mlflow_run.data.tags
    assert mlflow_run.info.status == "FINISHED" and "evomerge.failed" not in tags
    assert tags["evomerge.promoted"] == str(model_dir)
    assert tags["evomerge.model_version"] == promotion.model_version
    assert tags["evomerge.weights_sha256"] == promotion.weights_sha256
    assert {"holdout/toy_choose", "holdout/combined"} <= mlflow_run.data.metrics.keys()
    artifacts = client.list_artifacts(mlflow_run.info.run_id, "promoted")
    assert {a.path for a in artifacts} == {"promoted/README.md", "promoted/recipe.yaml"}

    before = files(model_dir)
    assert promote(run_dir, candidate) == promotion
    assert files(model_dir) == before
    assert len(versions(client, model_dir)) == 1
    assert read_journal(run_dir / "journal.jsonl")[0] == events
    assert [p.name for p in model_dir.parent.iterdir()] == [candidate]


def test_a_path_runs_its_own_code(run_dir, client):
    promotion = promote(run_dir, "e0000")
    assert promotion.is_exact
    measured = state(run_dir).candidates["e0000"].measured
    assert measured["validation"].weights_sha256 == promotion.weights_sha256
    assert (promotion.model_dir / "modeling_path.py").is_file()
    assert len(versions(client, promotion.model_dir)) == 1

    (promotion.model_dir / "modeling_path.py").write_text("raise SystemExit('remote code')\n")
    with pytest.raises(InputError, match=r"modeling_path.py is not what the recipe gives"):
        promote(run_dir, "e0000")


def test_a_promotion_cut_off_anywhere_is_completed(run_dir, client):
    candidate = chosen_of(run_dir)
    model_dir = run_dir / "promoted" / candidate
    # Killed while it wrote, and while it checked.
    for name in (f".{candidate}.promoted", f"..{candidate}.promoted.abcd"):
        (model_dir.parent / name).mkdir(parents=True)
        (model_dir.parent / name / "model.safetensors").write_bytes(b"half")
    first = promote(run_dir, candidate)
    assert [p.name for p in model_dir.parent.iterdir()] == [candidate]

    # Killed before it registered: folder and journal are there, MLflow knows nothing.
    run_id = child(client, candidate).info.run_id
    (version,) = versions(client, model_dir)
    client.delete_registered_model_alias("toy", "promoted")
    client.delete_model_version("toy", version.version)
    for tag in ("evomerge.promoted", "evomerge.model_version"):
        client.delete_tag(run_id, tag)
    before = files(model_dir)
    again = promote(run_dir, candidate)
    (version,) = versions(client, model_dir)
    experiment = client.get_experiment_by_name("toy").experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    assert [
        m.artifact_location for m in models if m.tags["evomerge.model_dir"] == str(model_dir)
    ] == [version.source]

    # Killed before the last tags.
    for tag in ("evomerge.promoted", "evomerge.model_version"):
        client.delete_tag(run_id, tag)
    third = promote(run_dir, candidate)
    assert files(model_dir) == before
    assert len(versions(client, model_dir)) == 1
    assert child(client, candidate).data.tags["evomerge.promoted"] == str(model_dir)
    assert first.weights_sha256 == again.weights_sha256 == third.weights_sha256


def test_a_record_that_was_changed_is_refused(run_dir, client):
    candidate = other_finalist(run_dir)

    def better(data):
        if (data["candidate"], data["split"]) == (candidate, "search"):
            data["blocks"]["0"]["toy_choose"][1] += 0.1

    rewrite(run_dir, better)
    message = r"search/toy_choose: the journal says .*documents give"
    with nothing_comes_of_it(run_dir, client, candidate, message):
        promote(run_dir, candidate)


def test_scores_that_cannot_be_had_again_are_refused(run_dir, client):
    """As if the documents of another candidate had been recorded for this one."""
    candidate = other_finalist(run_dir)
    measured = state(run_dir).candidates[candidate].measured["search"]
    means = {}
    for part in measured.parts:
        path = run_dir / "documents" / part
        table = pq.read_table(path).to_pydict()
        rows = range(len(table["task"]))
        chosen = [
            n
            for n in rows
            if (table["candidate"][n], table["split"][n], table["task"][n])
            == (candidate, "search", "toy_choose")
        ]
        for n in chosen:
            table["metric:acc"][n] = 1.0 - table["metric:acc"][n]
        means |= {n: table["metric:acc"][n] for n in chosen}
        schema = pq.read_schema(path)
        pq.write_table(pa.table(table, schema=schema), path)
    assert len(means) == 10

    def agree(data):
        if (data["candidate"], data["split"]) == (candidate, "search"):
            for block in data["blocks"].values():
                if "toy_choose" in block:
                    count, mean, squares = block["toy_choose"]
                    block["toy_choose"] = [count, 1.0 - mean, squares]

    rewrite(run_dir, agree)
    message = r"search/toy_choose: recorded .*, found .*; the difference's 95 % interval is"
    with nothing_comes_of_it(run_dir, client, candidate, message):
        promote(run_dir, candidate)


def test_other_weights_than_were_scored_are_refused(run_dir, client):
    candidate = other_finalist(run_dir)

    def other(data):
        if data["weights_sha256"]:
            data["weights_sha256"] = "0" * 64

    rewrite(run_dir, other)
    message = r"have hash [0-9a-f]{12}, the record says 0{12} \(cpu\)"
    with nothing_comes_of_it(run_dir, client, candidate, message):
        promote(run_dir, candidate)


def test_an_old_journal_without_hashes_is_checked_by_scores(run_dir):
    def forget(data):
        del data["weights_sha256"], data["device"]

    rewrite(run_dir, forget)
    assert promote(run_dir, chosen_of(run_dir)).is_exact


def test_a_promoted_folder_that_was_changed_is_refused(run_dir, client):
    candidate = chosen_of(run_dir)
    model_dir = promote(run_dir, candidate).model_dir
    weights = load_file(model_dir / "model.safetensors")
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, model_dir / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="have hash"):
        promote(run_dir, candidate)
    save_file(kept, model_dir / "model.safetensors", metadata={"format": "pt"})

    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    with pytest.raises(InputError, match=r"config.json is not what the recipe gives"):
        promote(run_dir, candidate)
    (model_dir / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"adapter_config.json was not written by an export"):
        promote(run_dir, candidate)
    assert len(versions(client, model_dir)) == 1

    with pytest.raises(InputError, match="a model of another recipe"):
        promote(run_dir, other_finalist(run_dir), model_dir)


def test_a_changed_pool_is_refused_and_the_run_says_so(run_dir, client):
    candidate = chosen_of(run_dir)
    run_id = child(client, candidate).info.run_id
    # Promoted before, by another test.
    for tag in ("evomerge.promoted", "evomerge.model_version"):
        if tag in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, tag)
    expert = run_dir.parents[1] / "pool/expert0/model.safetensors"
    kept = expert.read_bytes()
    try:
        weights = load_file(expert)
        weights["model.norm.weight"] += 1e-3
        save_file(weights, expert, metadata={"format": "pt"})
        client.set_tag(run_id, "evomerge.pick", "yes")
        assert picked(store_of(run_dir)) == [run_id]
        before = len(client.search_model_versions())
        with pytest.raises(InputError, match=r"'expert0' has .*changed"):
            promote_pick(run_id, store_of(run_dir))
    finally:
        expert.write_bytes(kept)
    assert len(client.search_model_versions()) == before
    assert "expert0" in client.get_run(run_id).data.tags["evomerge.refused"]
    assert picked(store_of(run_dir)) == []
    client.delete_tag(run_id, "evomerge.refused")
    assert picked(store_of(run_dir)) == [run_id]
    promotion = promote_pick(run_id, store_of(run_dir))
    assert promotion.candidate == candidate
    assert picked(store_of(run_dir)) == []
    client.delete_tag(run_id, "evomerge.pick")


def test_what_cannot_be_promoted(run_dir, client):
    store = store_of(run_dir)
    with pytest.raises(InputError, match=r"no candidate 'c9'; .*valid: base"):
        promote(run_dir, "c9")
    journal = Journal(run_dir / "journal.jsonl")
    run_id = child(client, "e0000").info.run_id
    with pytest.raises(NotNowError, match="in use by process"):
        promote_pick(run_id, store)
    journal.append("failed", candidate="e0000", split="search", reason="NaN", attempt=3, final=True)
    journal.close()
    assert "evomerge.refused" not in client.get_run(run_id).data.tags
    with pytest.raises(InputError, match="e0000 has failed, it cannot be promoted: NaN"):
        promote(run_dir, "e0000")
    parent_id = client.get_run(run_id).data.tags["mlflow.parentRunId"]
    with pytest.raises(InputError, match="is not a candidate's"):
        promote_pick(parent_id, store)
    client.delete_tag(parent_id, "evomerge.refused")
    assert picked(f"sqlite:///{run_dir}/none.db") == []
