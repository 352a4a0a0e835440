"""docs/architecture.md says what the code does: its rooms, its order of them, its examples."""

from __future__ import annotations

import ast
import re
import tomllib
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "tests/plug_in"


def rooms_of_the_table() -> list[set[str]]:
    """Rooms by row, from the lowest to the highest."""
    table = TEXT.partition("## Rooms")[2].partition("## Joints")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [set(re.findall(r"`([a-z_]+)`", row)) for row in rows]


def test_every_room_is_there():
    folders = {path.parent.name for path in (ROOT / "evomerge").glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / "evomerge").glob("[a-z]*.py")}
    named = set().union(*rooms_of_the_table())
    assert folders - {"demo"} <= named
    assert modules <= named
    assert named <= folders | modules | {"flows"}


def test_the_table_is_in_the_order_that_imports_are_checked_by():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = settings["tool"]["importlinter"]["contracts"][0]
    height: dict[str, int] = {}
    for number, layer in enumerate(reversed(contract["layers"])):
        for room in layer.split("|"):
            height[room.strip().removeprefix("evomerge.")] = number
    heights = [{height[room] for room in row if room in height} for row in rooms_of_the_table()]
    assert all(max(below) < min(above) for below, above in pairwise(heights))


def test_the_examples_of_plug_ins_are_those_that_are_tested():
    files = [path.read_text(encoding="utf-8") for path in EXAMPLES.rglob("*.py")]
    code = {re.sub(r"\s+", " ", text) for text in files}
    examples = (
        "class RestoredMean(Method)",
        "class Steps(BaseOptimizer)",
        "class Bigram:",
        "class NumModels(ObjectiveKind)",
    )
    for name in examples:
        start = TEXT.index(name)
        block = TEXT[start : TEXT.index("```", start)]
        # The file has docstrings that the document leaves out.
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        assert any(all(re.sub(r"\s+", " ", line) in text for line in lines) for text in code), name


LOADERS = {
    "from_pretrained": {"evomerge/pool/from_transformers.py"},
    "from_config": {"evomerge/pool/from_transformers.py"},
    # What evomerge has written itself, or huggingface_hub.
    "safe_load": {
        "evomerge/promote/publish.py",
        "evomerge/record/config.py",
        "evomerge/record/mlflow_sync.py",
    },
}
"""What reads foreign files, and where alone it may be called."""


def test_foreign_files_are_read_where_it_is_safe():
    found: dict[str, set[str]] = {name: set() for name in LOADERS}
    for folder in ("evomerge", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = (
                    node.func.attr
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                    else None
                )
                if name in LOADERS:
                    found[name].add(str(path.relative_to(ROOT)))
    assert found == LOADERS
