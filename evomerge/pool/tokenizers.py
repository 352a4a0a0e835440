"""Whether the models of a pool read text alike."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import InputError
from evomerge.files import sha256_file
from evomerge.pool.checkpoint import Checkpoint, read_json


def check_tokenizers(base: Checkpoint, experts: tuple[Checkpoint, ...]) -> None:
    """Compare vocabularies; an expert without a tokenizer takes the base's.

    Raises:
        InputError: A token has another id in an expert than in the base.
    """
    base_path = base.model_dir / "tokenizer.json"
    if not base_path.is_file():
        return
    base_vocabulary: dict[str, int] | None = None
    for expert in experts:
        path = expert.model_dir / "tokenizer.json"
        if not path.is_file() or sha256_file(path) == sha256_file(base_path):
            continue
        if base_vocabulary is None:
            base_vocabulary = _vocabulary(base.name, base_path)
        vocabulary = _vocabulary(expert.name, path)
        for token in sorted(base_vocabulary.keys() | vocabulary.keys()):
            ids = base_vocabulary.get(token), vocabulary.get(token)
            if ids[0] != ids[1]:
                raise InputError(
                    f"tokenizers differ: token {token!r} has id {ids[0]} in {base.name!r} "
                    f"and {ids[1]} in {expert.name!r}\n"
                    "models of one pool must share the base's vocabulary"
                )


def _vocabulary(name: str, path: Path) -> dict[str, int]:
    data = read_json(name, path)
    model = data.get("model", {}).get("vocab", {})
    if isinstance(model, list):  # Unigram: pairs of (token, score), the id is the position
        vocabulary = {token: index for index, (token, _) in enumerate(model)}
    else:
        vocabulary = dict(model)
    for token in data.get("added_tokens", []):
        vocabulary[token["content"]] = token["id"]
    return vocabulary
