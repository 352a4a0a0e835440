"""Chat templates as transformers keeps them beside a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from evomerge.errors import InputError
from evomerge.pool.checkpoint import model_json
from evomerge.pool.foreign_code import TOKENIZER_CONFIG
from evomerge.reading import read_text

TEMPLATE_FILE = "chat_template.jinja"


def read_chat_template(name: str, model_dir: Path) -> str | None:
    """A model's own chat template, in Jinja; of several the default one.

    Args:
        name: The model's, for messages.
        model_dir: Its folder.

    Raises:
        InputError: The template or its tokenizer's configuration is damaged.
    """
    path = model_dir / TEMPLATE_FILE
    if path.is_file():
        # Where there are both, this is what transformers reads.
        try:
            return read_text(path, "its chat template")
        except InputError as error:
            raise InputError(f"model {name!r}: {error}") from None
    if not (model_dir / TOKENIZER_CONFIG).is_file():
        return None
    template = model_json(name, model_dir / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict)]
        template = next((e.get("template") for e in named if e.get("name") == "default"), None)
    return template if isinstance(template, str) and template else None


def write_chat_template(template: str, model_dir: Path) -> None:
    """Put a chat template in the place of a written model's."""
    (model_dir / TEMPLATE_FILE).write_text(template, encoding="utf-8")
    path = model_dir / TOKENIZER_CONFIG
    if path.is_file():
        # Older programs look here only.
        config = json.loads(path.read_text(encoding="utf-8")) | {"chat_template": template}
        text = json.dumps(config, indent=2, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")
