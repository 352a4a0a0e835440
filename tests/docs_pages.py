"""The pages of the documentation, and a folder in which what they show can be run."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from evomerge.begin.task import write_task

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] if "_head" not in path.stem
)
BLOCK = re.compile(r"^```(?P<info>[^\n]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

MODELS = {"base": "base", "math": "sort", "code": "reverse", "japanese": "numeral"}
"""What pages call them, and the demo's models that they are here."""


@dataclass(frozen=True)
class Shown:
    """A block of a page.

    Attributes:
        page: The page.
        language: Behind the fence.
        title: The file that it is, if it is one.
        text: What is in it.
    """

    page: Path
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:\n{self.text}"


def blocks(page: Path, *languages: str) -> list[Shown]:
    """What a page shows in some languages; in all of them, if none is named."""
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        language, _, rest = match["info"].partition(" ")
        title = re.fullmatch(r'title="(.+)"', rest)
        shown = Shown(page, language, title and title[1], match["text"])
        if not languages or language in languages:
            found.append(shown)
    return found


def lay_out(folder: Path) -> None:
    """The models, data and tasks that pages speak of, and the demo."""
    shutil.copytree(ROOT / "evomerge/demo", folder / "evomerge/demo")
    for name, skill in MODELS.items():
        shutil.copytree(ROOT / "evomerge/demo/pool" / skill, folder / "models" / name)
    (folder / "tasks").mkdir()
    for name, skill, columns in (
        ("quiz", "sort", {"prompt": "question", "choices": "choices", "gold": "answer"}),
        ("sums", "numeral", {"prompt": "question", "answer": "answer"}),
    ):
        source = ROOT / f"evomerge/demo/tasks/{skill}.jsonl"
        rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
        data = folder / f"{name}.jsonl"
        kept = ({new: row[old] for old, new in columns.items()} for row in rows)
        data.write_text("".join(f"{json.dumps(row)}\n" for row in kept), encoding="utf-8")
        write_task(data, folder / f"tasks/{name}.yaml", prompt="{{question}}")
