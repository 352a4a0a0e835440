"""docs/faults.md and docs/security.md: each row names a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEST = re.compile(r"`(tests/\S+\.py)::(?:(\w+)::)?(\w+)`")


def named_in(path: Path) -> set[tuple[str, str]]:
    """Classes ("" for none) and names of a file's tests."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(("", node.name))
        elif isinstance(node, ast.ClassDef):
            found |= {(node.name, n.name) for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("page", "least"), [("faults", 20), ("security", 10)])
def test_each_row_is_a_test(page, least):
    paragraphs = (ROOT / f"docs/{page}.md").read_text().split("\n\n")
    rows = next(text for text in paragraphs if text[:1] == "|").splitlines()
    assert len(rows) > least
    for row in rows[2:]:
        (named,) = TEST.findall(row)
        path, of_class, name = named
        assert (of_class, name) in named_in(ROOT / path), row
