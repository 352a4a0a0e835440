"""The demo tasks' documents, and the command that writes them: `python -m evomerge.demo.documents`.

They come from a data seed of their own: the same documents for every pool, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from evomerge.demo import TASKS_DIR
from evomerge.demo.skills import SKILLS, Skill
from evomerge.files import write_text

DATA_SEED = 7
NUM_DOCUMENTS = 1000


def documents(skill: Skill, num_documents: int = NUM_DOCUMENTS) -> list[dict[str, Any]]:
    """The documents of a skill's task, no two with the same prompt.

    Args:
        skill: The skill, at its `full` lengths.
        num_documents: How many; fewer are the first of more.

    Returns:
        One dictionary a document: `prompt`, `answer`, `choices` (the answer and its distractors
        in random order) and `gold` (the answer's place among them).
    """
    rng = Random(f"{DATA_SEED}:{skill.name}")
    found: dict[str, dict[str, Any]] = {}
    while len(found) < num_documents:
        line = skill.full_line(rng)
        distractors = skill.distractors(line.answer, rng)
        if line.prompt in found or distractors is None:
            continue
        choices = [line.answer, *distractors]
        rng.shuffle(choices)
        found[line.prompt] = {
            "prompt": line.prompt,
            "answer": line.answer,
            "choices": choices,
            "gold": choices.index(line.answer),
        }
    return list(found.values())


def held_out_prompts() -> frozenset[str]:
    """The prompts of all documents, which no training text may contain."""
    return frozenset(document["prompt"] for skill in SKILLS for document in documents(skill))


def write_documents(out_dir: Path) -> list[Path]:
    """Write one JSONL file a skill into `out_dir`.

    Returns:
        The files' paths.
    """
    paths = []
    for skill in SKILLS:
        lines = (json.dumps(document, ensure_ascii=False) for document in documents(skill))
        path = out_dir / f"{skill.name}.jsonl"
        write_text(path, "".join(f"{line}\n" for line in lines))
        paths.append(path)
    return paths


def main() -> None:
    """Write the documents, by default in place of the shipped ones."""
    parser = argparse.ArgumentParser(prog="python -m evomerge.demo.documents", description=__doc__)
    parser.add_argument("--out", type=Path, default=TASKS_DIR, help="folder of the JSONL files")
    for path in write_documents(parser.parse_args().out):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
