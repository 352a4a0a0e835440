"""Document rows on disk: one Parquet file for each group commit of the journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evomerge.files import write_new
from evomerge.journal.folder import DOCUMENTS_DIR
from evomerge.journal.room import when_there_is_room


def write_part(run_dir: Path, seq: int, tables: Sequence[pa.Table]) -> str:
    """Write one part, flushed to disk, named after the journal event that will name it.

    Returns:
        The file's name.

    Raises:
        StoppedError: There was no room for long.
    """
    name = f"{seq:09d}.parquet"
    # In one piece it takes half the time to write.
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream)
    content = memoryview(stream.getvalue())
    when_there_is_room(lambda: write_new(run_dir / DOCUMENTS_DIR / name, content), run_dir)
    return name


def rows_for(
    run_dir: Path,
    parts: Sequence[str],
    owner: str,
    split: str,
    documents: Iterable[tuple[str, int]],
    candidate: str,
) -> pa.Table:
    """Rows of one candidate as those of another with the same recipe.

    Args:
        run_dir: The run folder.
        parts: The Parquet files that the journal names for the owner.
        owner: Id of the candidate whose rows they are.
        split: The split.
        documents: Which rows, by task and document.
        candidate: Id of the candidate that gets them.

    Raises:
        OSError: A file is not there.
        pa.ArrowInvalid: A file is damaged.
    """
    is_owners = [("candidate", "=", owner), ("split", "=", split)]
    tables = [pq.read_table(run_dir / DOCUMENTS_DIR / part, filters=is_owners) for part in parts]
    table = pa.concat_tables(tables, promote_options="default")
    wanted = set(documents)
    is_wanted = []
    for key in zip(table["task"].to_pylist(), table["document"].to_pylist(), strict=True):
        is_wanted.append(key in wanted)
        # Where a document came twice, the first counts.
        wanted.discard(key)
    table = table.filter(pa.array(is_wanted, pa.bool_()))
    names = pa.array([candidate] * table.num_rows, pa.string())
    return table.set_column(table.column_names.index("candidate"), "candidate", names)


def read_values(
    run_dir: Path, parts: Sequence[str], candidate: str, split: str, task: str, column: str
) -> dict[int, float]:
    """A metric of a candidate by document.

    Args:
        run_dir: The run folder.
        parts: The Parquet files that the journal names for the candidate.
        candidate: Its id.
        split: The split.
        task: The task.
        column: The metric, as `Row.metrics` has it.

    Returns:
        Values by document id; where a document came twice, the first counts.
    """
    return _read_column(run_dir, parts, candidate, split, task, f"metric:{column}")


def read_log_likelihoods(
    run_dir: Path, parts: Sequence[str], candidate: str, split: str, task: str
) -> dict[int, list[float]]:
    """Log-likelihoods of a candidate's choices by document; see `read_values`."""
    return _read_column(run_dir, parts, candidate, split, task, "log_likelihoods")


def _read_column(
    run_dir: Path, parts: Sequence[str], candidate: str, split: str, task: str, column: str
) -> dict[int, Any]:
    values: dict[int, Any] = {}
    names = ["candidate", "split", "task", "document"]
    for part in parts:
        # Parts are small: threads would cost more than they save.
        with pq.ParquetFile(run_dir / DOCUMENTS_DIR / part) as file:
            table = file.read([*names, column], use_threads=False)
        if column not in table.column_names:
            continue
        wanted = zip(*(table[name].to_pylist() for name in (*names, column)), strict=True)
        for c, s, t, document, value in wanted:
            if (c, s, t) == (candidate, split, task) and document not in values:
                values[document] = value
    return values


def read_answers(
    run_dir: Path, parts: Sequence[str], candidate: str, split: str
) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of a candidate by task and document; see `read_flags`."""
    is_its = [("candidate", "=", candidate), ("split", "=", split)]
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for part in parts:
        table = pq.read_table(run_dir / DOCUMENTS_DIR / part, filters=is_its)
        for row in table.to_pylist():
            rows.setdefault((row["task"], row["document"]), row)
    return rows


def read_flags(
    run_dir: Path, parts: Sequence[str], candidate: str, split: str
) -> dict[str, dict[int, list[str]]]:
    """Remarks on the documents of a candidate.

    Args:
        run_dir: The run folder.
        parts: The Parquet files that the journal names for the candidate.
        candidate: Its id.
        split: The split.

    Returns:
        By task and document id; where a document came twice, the first counts.
    """
    is_its = [("candidate", "=", candidate), ("split", "=", split)]
    flags: dict[str, dict[int, list[str]]] = {}
    for part in parts:
        columns = ["task", "document", "flags"]
        table = pq.read_table(run_dir / DOCUMENTS_DIR / part, columns=columns, filters=is_its)
        for row in table.to_pylist():
            flags.setdefault(row["task"], {}).setdefault(row["document"], row["flags"])
    return flags
