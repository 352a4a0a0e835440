"""A checkpoint on the hub, without what only this machine knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import EvomergeError, InputError
from evomerge.models.export import CARD_FILE, MERGEKIT_FILE, RECIPE_FILE
from evomerge.pool.adapters.adapter import ADAPTER_CONFIG
from evomerge.recipe import read_recipe

REWRITTEN = (CARD_FILE, RECIPE_FILE, MERGEKIT_FILE, ADAPTER_CONFIG)
"""Files that name the folders of models."""

_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")

_WRITTEN_BY = re.compile(r"^Written by `evomerge .*`\.\n", re.MULTILINE)


@dataclass(frozen=True)
class Upload:
    """What goes to the hub.

    Attributes:
        repository: OWNER/NAME.
        files: Size of each file in bytes, by its name.
        texts: Files whose text is another than in the folder.
        url: Where it is, once it is there.
    """

    repository: str
    files: dict[str, int]
    texts: dict[str, str]
    url: str | None = None

    def lines(self) -> list[str]:
        """What is said of it."""
        total = sum(self.files.values())
        done = f"{self.url}: uploaded" if self.url else f"would upload to {self.repository}:"
        return [
            f"{done} ({len(self.files)} files, {total / (1 << 20):,.1f} MiB)",
            *(f"  {name}, {size:,} bytes" for name, size in self.files.items()),
        ]


def check_repository(repository: str) -> None:
    """Refuse what is no repository's name.

    Raises:
        InputError: It is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"--push-to-hub: {error}") from None
    if "/" not in repository:
        raise InputError(f"--push-to-hub: {repository!r} has no owner; valid: OWNER/NAME")


def prepare(folder: Path, repository: str) -> Upload:
    """What an upload of a checkpoint or an adapter would have.

    Local folders in card, recipe and settings become the models' names: nobody else has them.

    Args:
        folder: The checkpoint or adapter, with its recipe.
        repository: OWNER/NAME.

    Raises:
        InputError: It is no repository's name, or a path cannot be taken out.
    """
    check_repository(repository)
    recipe = read_recipe(folder / RECIPE_FILE)
    local = {
        member.source: name
        for name, member in recipe.members.items()
        if Path(member.source).is_absolute()
    }
    for source in local:
        # YAML and JSON write other letters in other ways, which would not be found here.
        if not _PLAIN.fullmatch(source):
            raise InputError(
                f"--push-to-hub: the path {source!r} stands in card and recipe and cannot be taken "
                "out; valid: model folders whose paths have letters, digits, '/', '.', '_' and '-'"
            )
    texts = {}
    for name in REWRITTEN:
        path = folder / name
        if not path.is_file():
            continue
        text = before = path.read_text(encoding="utf-8")
        if name == CARD_FILE:
            text = _WRITTEN_BY.sub("", _without_local_bases(text, set(local)))
        # Longer ones first: one folder may lie in another.
        for source in sorted(local, key=len, reverse=True):
            text = text.replace(source, local[source])
        if text != before:
            texts[name] = text
    files = {
        path.name: len(texts[path.name].encode()) if path.name in texts else path.stat().st_size
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    return Upload(repository, files, texts)


def upload(folder: Path, planned: Upload, *, is_private: bool) -> Upload:
    """Upload a folder in one commit.

    Raises:
        EvomergeError: The hub refuses it, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    operations = []
    for name in planned.files:
        content = planned.texts[name].encode() if name in planned.texts else folder / name
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content))
    api = HfApi()
    try:
        created = api.create_repo(planned.repository, private=is_private, exist_ok=True)
        api.create_commit(
            planned.repository, operations, commit_message="A merge found by evomerge"
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EvomergeError(f"{planned.repository} could not be uploaded: {reason}") from None
    return Upload(planned.repository, planned.files, planned.texts, str(created))


def _without_local_bases(card: str, local: set[str]) -> str:
    """The card's metadata without models that the hub does not have."""
    lines = card.splitlines(keepends=True)
    kept = [line for line in lines if line.strip().removeprefix("- ") not in local]
    text = "".join(kept)
    return text.replace("base_model:\ntags:", "tags:")
