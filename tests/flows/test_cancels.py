"""Flow runs that are cancelled at random moments, on a real server, by a real worker."""

from __future__ import annotations

import random
import time

import pytest

from commands import num_lines
from prefect_server import serve_endless_search

pytestmark = pytest.mark.long

NUM_CANCELS = 20
LIMIT_S = 120.0
UNENDED = {"PENDING", "RUNNING"}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    yield from serve_endless_search(tmp_path_factory.mktemp("cancels"))


class FlowRun:
    def __init__(self, prefect, number):
        self.prefect = prefect
        self.run_dir = prefect.folder / "runs" / f"cancelled-{number}"
        deployment = prefect.get("/deployments/name/search/demo")["id"]
        parameters = {"config": "config.yaml", "run_dir": str(self.run_dir)}
        self.id = prefect.get(
            f"/deployments/{deployment}/create_flow_run",
            {"parameters": parameters, "state": {"type": "SCHEDULED"}},
        )["id"]

    @property
    def state(self):
        return self.prefect.get(f"/flow_runs/{self.id}")["state"]["type"]

    def wait_until(self, is_so):
        ends = time.monotonic() + LIMIT_S
        while not is_so():
            assert time.monotonic() < ends, self.state
            time.sleep(0.02)

    def has_lines(self, count):
        journal = self.run_dir / "journal.jsonl"
        return journal.exists() and num_lines(journal) >= count

    def cancel(self):
        self.prefect.get(f"/flow_runs/{self.id}/set_state", {"state": {"type": "CANCELLING"}})
        self.wait_until(lambda: self.state not in ("RUNNING", "CANCELLING"))

    def states_of_tasks(self):
        tasks = self.prefect.get("/task_runs/filter", {"flow_runs": {"id": {"any_": [self.id]}}})
        return [task["state"]["type"] for task in tasks]

    def log(self):
        query = {"logs": {"flow_run_id": {"any_": [self.id]}}, "limit": 200}
        return "\n".join(entry["message"] for entry in self.prefect.get("/logs/filter", query))


def test_cancels_at_random_moments(prefect):
    """The run is Cancelled, its tasks are at most that, and nobody sees a traceback."""
    rng = random.Random(5)
    for number in range(NUM_CANCELS):
        run = FlowRun(prefect, number)
        run.wait_until(lambda run=run: run.state == "RUNNING")
        if number % 2:
            count = rng.randrange(1, 150)
            run.wait_until(lambda run=run, count=count: run.has_lines(count))
            time.sleep(rng.random() * 0.05)
        else:
            # Also while it is checked, and while Ray and its actors start.
            time.sleep(rng.random() * 12.0)
        run.cancel()
        assert run.state == "CANCELLED", f"{number}: {run.log()}"
        # States of tasks come to the server behind that of the flow run.
        run.wait_until(lambda run=run: not UNENDED & set(run.states_of_tasks()))
        states = run.states_of_tasks()
        assert set(states) <= {"COMPLETED", "CANCELLED"}, f"{number}: {states}"
        assert "Traceback" not in run.log(), f"{number}: {run.log()}"
    assert "Traceback" not in (prefect.folder / "worker.log").read_text()
