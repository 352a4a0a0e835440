"""Which of mergekit's files a file is, told by its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from evomerge.errors import InputError
from evomerge.reading import compose_and_load_all, read_text

Kind = Literal["merge", "evolve"]


def kind_of(path: Path) -> Kind | None:
    """What a file of mergekit's describes: a merge, or several that name each other; or a search.

    Returns:
        None where it is no file of mergekit's, or no YAML.

    Raises:
        InputError: It describes a mixture of experts.
    """
    try:
        documents = [data for _, data in compose_and_load_all(read_text(path, "the file"), path)]
    except InputError:
        return None
    mappings = [data for data in documents if isinstance(data, dict)]
    if any("merge_method" in data and "members" not in data for data in mappings):
        return "merge"
    for data in mappings:
        if isinstance(data.get("genome"), dict) and "pool" not in data:
            return "evolve"
        if _is_moe(data):
            raise InputError(
                f"{path}: this is a mergekit-moe configuration: a mixture of experts, whose gates "
                "are made from prompts, and these are not built\nvalid: a file with `merge_method`"
            )
    return None


def is_mergekit(path: Path) -> bool:
    """Whether a file describes merges in mergekit's words."""
    return kind_of(path) == "merge"


def require_model(path: Path) -> None:
    """Refuse a file that describes a search, where a model is wanted.

    Raises:
        InputError: It does, or a mixture of experts.
    """
    if kind_of(path) == "evolve":
        raise InputError(
            f"{path}: this is a mergekit-evolve configuration, which describes a search and no "
            f"model\n`evomerge convert {path} --out search.yaml` makes a configuration of it"
        )


def _is_moe(data: dict[str, Any]) -> bool:
    experts = data.get("experts")
    return isinstance(experts, list) and (
        "gate_mode" in data
        or any(isinstance(expert, dict) and "source_model" in expert for expert in experts)
    )
