"""The flows themselves, against a temporary Prefect server: stages, artifacts, what is refused."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import TerminationSignal
from prefect.task_engine import SyncTaskRunEngine
from prefect.testing.utilities import prefect_test_harness

from evomerge.choice.table import final_table
from evomerge.config import load_config
from evomerge.errors import EvomergeError, InputError
from evomerge.journal import read_journal
from evomerge.record.verdicts import verdict
from evomerge.search import Progress, Result
from fixtures import make_config, make_workspace

sys.path.insert(0, str(Path(__file__).parents[2]))

from flows.promote import promote
from flows.score import score
from flows.search import FlowHooks, loaded, search
from flows.sweep import sweep

STAGES = ["check", "baselines", "search", "finalists", "holdout", "report"]
SMALL = {"workers": {"kind": "inline"}, "record": {"enabled": True}}


@pytest.fixture(scope="module")
def server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def folder(server, empty_store, tmp_path_factory):
    """Where a search has run."""
    folder = tmp_path_factory.mktemp("flows")
    make_workspace(folder, search={"budget": {"candidates": 4}, "finalists": 2}, **SMALL)
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")
    with chdir(folder):
        search(Path("config.yaml"), run_dir=Path("runs/toy"))
    return folder


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def last_flow_run(name):
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs() if run.name]
        flows = {run.id: client.read_flow(run.flow_id).name for run in runs}
        named = [run for run in runs if flows[run.id] == name]
        return max(named, key=lambda run: run.start_time)


def tasks_of(flow_run):
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=chosen)
    return [task.name for task in sorted(tasks, key=lambda task: task.start_time)]


def artifacts_of(flow_run):
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(flow_run_filter=chosen)
    # Of those that were written again the last.
    return {a.key: a.data for a in sorted(found, key=lambda artifact: artifact.created)}


def test_a_stage_is_a_task_and_the_table_an_artifact():
    assert read_journal(Path("runs/toy/journal.jsonl"))[0][-1].data == {"stage": "report"}
    flow_run = last_flow_run("search")
    assert flow_run.state_type == "COMPLETED"
    assert tasks_of(flow_run) == STAGES
    artifacts = artifacts_of(flow_run)
    assert "| model |" in artifacts["final-table"]
    assert artifacts["search"] == artifacts["baselines--search"] == 100.0


def test_artifacts_say_what_was_found_and_what_they_are():
    flow_run = last_flow_run("search")
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        all_of_it = client.read_artifacts(flow_run_filter=chosen)
    found = {a.key: a for a in sorted(all_of_it, key=lambda artifact: artifact.created)}
    table = final_table(Result(Path("runs/toy")).results)
    assert found["verdict"].data == f"**{verdict(table)}**"
    assert found["final-table"].data.startswith(found["verdict"].data)
    assert "`evomerge ui runs/toy` opens MLflow" in found["links"].data
    assert f"evomerge promote runs/toy --candidate {table['chosen']}" in found["links"].data
    assert "The last 10 candidates" in found["last-candidates"].description
    assert all(artifact.description for artifact in found.values())
    assert re.match(r"4 of 4; best .* ±.* \(c0000\d\)", found["search"].description)


def test_how_far_a_search_is_in_words():
    hooks = FlowHooks()
    hooks._began = 100.0
    late = Progress("search", 99, 100, None, None, 0, "")
    assert hooks._words(late, 400.0).endswith("; less than a minute left")
    best = {"best": (0.5, 0.1), "best_candidate": "c00001", "best_words": "~0.500 ±0.100"}
    progress = Progress("search", done=25, total=100, num_failed=1, line="", **best)
    assert hooks._words(progress, 400.0) == (
        "25 of 100; best ~0.500 ±0.100 (c00001); 1 failed; 300 an hour; about 15 min left"
    )


def test_overrides_and_seed_change_the_configuration():
    overrides = {"search.budget.candidates": 2, "search.finalists": 1, "name": "changed"}
    run_dir = Path(search(Path("config.yaml"), overrides, seed=7, run_dir=Path("runs/changed")))
    config = load_config(run_dir / "config.yaml")
    assert (config.name, config.seed, config.search.budget.candidates) == ("changed", 7, 2)
    loaded_config = load_config(Path("config.yaml"))
    # A configuration that is given as a whole, as Prefect's form gives it.
    again = search(loaded_config, overrides, 7, Path("runs/whole"), config_dir=Path())
    assert load_config(Path(again) / "config.yaml") == config
    assert loaded(loaded_config, {"search.finalists": 1}).search.finalists == 1
    with pytest.raises(InputError, match="unknown field; did you mean 'search'"):
        loaded(Path("config.yaml"), {"serch.finalists": 1})
    with pytest.raises(InputError, match="overrides: search.finalists"):
        loaded(loaded_config, {"search.finalists": -1})


def test_a_candidate_and_a_model_are_scored():
    best = Result(Path("runs/toy")).best
    found = score(run_dir=Path("runs/toy"), candidate=best)
    told = artifacts_of(last_flow_run("score"))["scores"]
    assert set(found) == {"toy_choose", "toy_write"}
    assert all(f"| {name} | {entry['value']:.4f} |" in told for name, entry in found.items())
    same = score(model="pool/base", config=Path("config.yaml"))
    assert same["toy_choose"]["num_documents"] > 0
    with pytest.raises(InputError, match="give `model` with `config`"):
        score(model="pool/base")


def test_a_sweep_ends_with_one_table():
    variants = {"linear": {"space.method": {"kind": "linear"}}, "plain": {}}
    small = {"search.budget.candidates": 2, "search.finalists": 1, "record.enabled": False}
    variants = {name: {**small, **changes} for name, changes in variants.items()}
    folders = sweep(Path("config.yaml"), seeds=[1, 2], variants=variants, run_dir=Path("runs/s"))
    assert [Path(each).name for each in folders] == ["linear-1", "linear-2", "plain-1", "plain-2"]
    table = artifacts_of(last_flow_run("sweep"))["sweep"]
    rows = [line for line in table.splitlines() if line.startswith(("| linear", "| plain"))]
    assert len(rows) == 4
    for row, folder in zip(rows, folders, strict=True):
        told = final_table(Result(Path(folder)).results)
        label, chosen, *_, words = [cell.strip() for cell in row.strip("|").split("|")]
        assert (label, chosen) == (Path(folder).name, told["chosen"])
        assert words == verdict(told)
    # Called again, nothing is searched twice.
    before = Path("runs/s/plain-1/journal.jsonl").read_bytes()
    assert sweep(Path("config.yaml"), [1, 2], variants, run_dir=Path("runs/s")) == folders
    assert Path("runs/s/plain-1/journal.jsonl").read_bytes() == before
    with pytest.raises(EvomergeError, match="was begun with another setting than search.fin"):
        changed = {name: {**each, "search.finalists": 2} for name, each in variants.items()}
        sweep(Path("config.yaml"), [1, 2], changed, run_dir=Path("runs/s"))
    for seeds, names, words in (([1, 1], ["x"], "named twice"), ([1], ["../x"], "no name of a")):
        with pytest.raises(InputError, match=words):
            sweep(Path("config.yaml"), seeds, {name: {} for name in names})
    with pytest.raises(InputError, match="no kind 'linaer'"):
        sweep(Path("config.yaml"), variants={"x": {"space.method": {"kind": "linaer"}}})


def test_the_form_says_what_each_field_is_for():
    properties = search.parameters.model_dump()["properties"]
    assert "Changes of the configuration" in properties["overrides"]["description"]
    budget = search.parameters.definitions["BudgetConfig"]["properties"]
    assert (
        budget["candidates"]["description"]
        == "How many candidates are scored and told to the optimizer."
    )


def test_a_run_is_gone_on_with():
    assert search(run_dir=Path("runs/toy"), resume=True) == "runs/toy"
    # Everything is done already.
    assert tasks_of(last_flow_run("search")) == ["check"]


def test_what_a_search_needs():
    with pytest.raises(InputError, match="give `config`, or `run_dir` with `resume`"):
        search.fn(run_dir=Path("runs/toy"))


def store():
    address = "sqlite:///runs/mlflow.db"
    return MlflowClient(address, address)


def candidates_of(client):
    experiment = client.get_experiment_by_name("toy").experiment_id
    runs = client.search_runs([experiment])
    return {run.data.tags.get("evomerge.candidate", "parent"): run.info.run_id for run in runs}


def test_promote_takes_what_is_picked():
    client, best = store(), Result(Path("runs/toy")).best
    assert promote() == []
    assert "nothing is picked" in last_flow_run("promote").state.message
    runs = candidates_of(client)
    client.set_tag(runs[best], "evomerge.pick", "yes")
    (model_dir,) = promote()
    assert Path(model_dir) == Path("runs/toy/promoted").resolve() / best
    assert f"| {best} |" in artifacts_of(last_flow_run("promote"))["promoted"]
    # Picked no more; another is named, by its MLflow run and by its candidate.
    assert promote() == []
    assert promote(run_id=runs[best]) == promote(run_dir=Path("runs/toy")) == [model_dir]
    assert promote(run_dir=Path("runs/toy"), candidate=best) == [model_dir]


def test_one_that_cannot_be_promoted_does_not_stop_the_others():
    client = store()
    runs = candidates_of(client)
    best = Result(Path("runs/toy")).best
    client.set_tag(runs["parent"], "evomerge.pick", "yes")
    client.set_tag(runs[best], "evomerge.pick", "yes")
    client.delete_tag(runs[best], "evomerge.promoted")
    with pytest.raises(EvomergeError, match="is not a candidate's"):
        promote()
    assert client.get_run(runs[best]).data.tags["evomerge.promoted"]
    client.delete_tag(runs["parent"], "evomerge.pick")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"candidate": "c00000"}, "give `run_id`; or `run_dir`"),
        ({"prefer": "toy_write=1"}, "give `run_id`; or `run_dir`"),
        ({"run_id": "a" * 32, "candidate": "c00000"}, "give `run_id`; or `run_dir`"),
        ({"run_id": "a" * 32, "run_dir": Path("runs/toy")}, "give `run_id`; or `run_dir`"),
        (
            {"run_dir": Path("runs/toy"), "candidate": "c00000", "prefer": "toy_write=1"},
            "`candidate` or `prefer`, not both",
        ),
        ({"run_dir": Path("runs/toy"), "prefer": "toy=1"}, "no objective 'toy'"),
    ],
)
def test_what_promote_needs(parameters, says):
    with pytest.raises(InputError, match=says):
        promote.fn(**parameters)


def test_a_flow_that_is_retried_goes_on_with_its_run(folder, monkeypatch):
    """Its folder is named by the flow run, which is the same."""
    search_of_two = {"budget": {"candidates": 2}, "finalists": 1}
    make_config(folder, search=search_of_two, workers={"kind": "inline"})
    module = sys.modules["flows.search"]
    start = module.start

    class Lost:
        def __init__(self, hooks):
            self.hooks, self.progress = hooks, hooks.progress

        def stage(self, name, body):
            if name == "finalists":
                raise RuntimeError("lost")
            self.hooks.stage(name, body)

    monkeypatch.setattr(module, "start", lambda *given: start(*given[:3], Lost(given[3])))
    run_dir = Path(search.with_options(retries=1)(Path("config.yaml")))
    flow_run = last_flow_run("search")
    assert run_dir.name == f"toy-{flow_run.id}"
    assert (flow_run.state_type, flow_run.run_count) == ("COMPLETED", 2)
    events = read_journal(run_dir / "journal.jsonl")[0]
    assert events[-1].data == {"stage": "report"}
    assert sum(event.kind == "asked" for event in events) == 2


def test_a_task_that_is_cancelled_while_prefect_works_on_it_is_no_crash(monkeypatch):
    """The signal of a cancellation can come in Prefect's own code around a stage."""
    whole = SyncTaskRunEngine.handle_success

    def interrupted(engine, *arguments, **options):
        with get_client(sync_client=True) as client:
            cancelling = State(type=StateType.CANCELLING)
            client.set_flow_run_state(engine.task_run.flow_run_id, cancelling, force=True)
        monkeypatch.setattr(SyncTaskRunEngine, "handle_success", whole)
        raise TerminationSignal(signal.SIGTERM)

    @flow(name="interrupted")
    def interrupted_flow():
        # A flow that it leaves would end the tests.
        with pytest.raises(TerminationSignal):
            FlowHooks().stage("check", lambda: None)

    monkeypatch.setattr(SyncTaskRunEngine, "handle_success", interrupted)
    interrupted_flow()
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[last_flow_run("interrupted").id]))
    with get_client(sync_client=True) as client:
        for _ in range(5):
            # States of tasks come to the server one after the other.
            (task,) = client.read_task_runs(flow_run_filter=chosen)
            assert task.state.is_cancelled(), task.state
            time.sleep(1.0)
