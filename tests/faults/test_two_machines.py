"""A search on a Ray of two machines, of which one is lost."""

from __future__ import annotations

import pytest
import ray

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


@pytest.mark.long
def test_a_search_goes_on_with_the_machine_that_is_left(two_machines, tmp_path):
    cluster, other = two_machines
    search = {"budget": {"candidates": 40}, "finalists": 1}
    make_workspace(tmp_path)
    whole = make_config(tmp_path, search=search, workers={"kind": "inline"})
    evomerge.run(whole, tmp_path / "whole")
    workers = {"address": cluster.address, "num_actors": 2}
    config = make_config(tmp_path, search=search, workers=workers)
    removed = []

    class Killer(Quiet):
        def progress(self, progress):
            if progress.stage == "search" and progress.done == 5 and not removed:
                removed.append(cluster.remove_node(other, allow_graceful=False))

    evomerge.run(config, tmp_path / "run", Killer())
    events = [read_journal(tmp_path / name / "journal.jsonl")[0] for name in ("whole", "run")]
    assert removed and normal_form(events[0]) == normal_form(events[1])
    failed = [event.data for event in events[1] if event.kind == "failed"]
    assert all(not data["final"] and data["blame"] == "incident" for data in failed)
