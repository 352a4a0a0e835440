"""A search on a Ray of two machines, of which one is lost."""

from __future__ import annotations

import pytest
import ray
from ray._private.state import actors

import evomerge
from evomerge.journal import normal_form, read_journal
from evomerge.search.hooks import Quiet
from fixtures import make_config, make_workspace


@pytest.fixture
def two_machines():
    """Ray's own stand-in for machines: each with a raylet and workers of its own."""
    from ray.cluster_utils import Cluster

    if ray.is_initialized():
        ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster, other
    ray.shutdown()
    cluster.shutdown()


def run_beside(cluster, folder, workers, hooks, candidates=40):
    """Normal forms of a search without Ray, and of the same on a cluster; and the latter's run."""
    search = {"budget": {"candidates": candidates}, "finalists": 1}
    make_workspace(folder)
    whole = make_config(folder, search=search, workers={"kind": "inline"})
    evomerge.run(whole, folder / "whole")
    config = make_config(folder, search=search, workers={"address": cluster.address, **workers})
    evomerge.run(config, folder / "run", hooks)
    events = [read_journal(folder / name / "journal.jsonl")[0] for name in ("whole", "run")]
    return normal_form(events[0]), normal_form(events[1]), events[1]


@pytest.mark.long
def test_actors_come_with_a_machine_and_go_with_it(two_machines, tmp_path, caplog):
    cluster, other = two_machines
    cluster.remove_node(other, allow_graceful=True)
    joined, seen = [], []

    class Joiner(Quiet):
        def progress(self, progress):
            if progress.stage != "search":
                return
            seen.append(sum(each["State"] == "ALIVE" for each in actors().values()))
            if progress.done >= 5 and not joined:
                joined.append(cluster.add_node(num_cpus=2))
            if progress.done >= 150 and len(joined) == 1:
                joined.append(cluster.remove_node(joined[0], allow_graceful=True))

    whole, run, events = run_beside(cluster, tmp_path, {"num_actors": "auto"}, Joiner(), 300)
    assert len(joined) == 2
    assert seen[0] == 1 and max(seen) == 3
    assert "3 actors find room in the cluster; so far 1 did" in caplog.text
    assert "1 actors find room in the cluster; so far 3 did" in caplog.text
    assert whole == run
    failed = [event.data for event in events if event.kind == "failed"]
    assert all(not data["final"] and data["blame"] == "incident" for data in failed)


@pytest.mark.long
def test_a_search_goes_on_with_the_machine_that_is_left(two_machines, tmp_path):
    cluster, other = two_machines
    removed = []

    class Killer(Quiet):
        def progress(self, progress):
            if progress.stage == "search" and progress.done == 5 and not removed:
                removed.append(cluster.remove_node(other, allow_graceful=False))

    whole, run, events = run_beside(cluster, tmp_path, {"num_actors": 2}, Killer())
    assert removed and whole == run
    failed = [event.data for event in events if event.kind == "failed"]
    assert all(not data["final"] and data["blame"] == "incident" for data in failed)
