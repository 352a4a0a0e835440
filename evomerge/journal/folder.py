"""A run folder: what lies in it and beside it, by name."""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE = "config.yaml"
"""The configuration with everything filled in."""

JOURNAL_FILE = "journal.jsonl"
"""Every event."""

DOCUMENTS_DIR = "documents"
"""Parquet files: one row a document, candidate, task and split."""

RECIPES_DIR = "recipes"
"""One YAML file a candidate; the journal has what they say."""

START_DIR = "start"
"""Recipes that the search began with, where some were named."""

INBOX_DIR = "inbox"
"""Recipes that are handed in from outside."""

SUMMARY_FILE = "summary.json"
"""The final table, for machines."""

REPORT_FILE = "report.html"
"""The same for people."""

FRONT_FILE = "front.html"
"""The front's pictures, in runs of earlier releases."""

EXPORT_DIR = "export"
"""The chosen model, where the configuration asks for it."""

PROMOTED_DIR = "promoted"
"""Promoted models, a folder for each candidate."""

SYNCER_LOG_FILE = "syncer.log"
"""What the process that writes to MLflow has to say."""

OWNER_FILE = ".owner.json"
"""Who works on the run: machine, process, user, and a token of its own."""

MLFLOW_FILE = ".mlflow.json"
"""Where the run is in MLflow: experiment and run."""

MLFLOW_LOCK_FILE = ".mlflow.lock"
"""Locked by whoever writes the run to MLflow."""

RUNS_DIR = Path("runs")
"""Where run folders are made, below the current folder."""

DATABASE_FILE = "mlflow.db"
"""MLflow's store, beside the run folders."""

ARTIFACTS_DIR = "mlartifacts"
"""MLflow's files, beside the run folders."""
