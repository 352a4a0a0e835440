"""Tags that a run's records in MLflow carry: what searches for them, and what people filter by."""

from __future__ import annotations

PARENT = "mlflow.parentRunId"
"""MLflow's own: the search's run, on a candidate's."""

RUN = "evomerge.run"
"""Which run it is, on the search's run: its folder and when it started."""

RUN_DIR = "evomerge.run_dir"
CANDIDATE = "evomerge.candidate"
ORIGIN = "evomerge.origin"
RECIPE_SHA256 = "evomerge.recipe_sha256"
WEIGHTS_SHA256 = "evomerge.weights_sha256"
FAILED = "evomerge.failed"

CHOSEN = "evomerge.chosen"
"""The chosen candidate's id, on the search's run."""

VERDICT = "evomerge.verdict"
"""What is said of the final table, a line each, on the search's run."""

FRONT = "evomerge.front"
RANK = "evomerge.rank"
CROWDING = "evomerge.crowding"
KNEE = "evomerge.knee"

PICK = "evomerge.pick"
"""Set to yes by a person who wants the candidate promoted."""

PROMOTED = "evomerge.promoted"
REFUSED = "evomerge.refused"
MODEL_VERSION = "evomerge.model_version"
MODEL_DIR = "evomerge.model_dir"
RESCORED = "evomerge.rescored"
