"""A checkpoint on the hub, without what only this machine knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import EvomergeError, InputError
from evomerge.models.export import CARD_FILE, MERGEKIT_FILE, RECIPE_FILE
from evomerge.pool.adapters.adapter import ADAPTER_CONFIG
from evomerge.recipe import Recipe, read_recipe

PUBLISHED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "modeling_*.py",
    "configuration_*.py",
    "tokenization_*.py",
    ADAPTER_CONFIG,
    CARD_FILE,
    RECIPE_FILE,
    MERGEKIT_FILE,
)
"""What a checkpoint or an adapter is made of; other files beside a base are not for everybody."""

TEXTS = (".json", ".yaml", ".md", ".txt", ".jinja", ".py")

_OF_FILES = ("name_or_path", "_file", "_path")
"""Ends of the fields in which transformers and PEFT note where a file was."""

_PLACE = re.compile(r"(~|file:/)?/[\w.-]+/\S*")
"""A file or folder of a machine, and no special token."""

_WRITTEN_BY = re.compile(r"^Written by `evomerge .*`\.\n", re.MULTILINE)


@dataclass(frozen=True)
class Upload:
    """What goes to the hub.

    Attributes:
        repository: OWNER/NAME.
        files: Size of each file in bytes, by its name.
        texts: Files whose text is another than in the folder.
        left_out: Files of the folder that are not uploaded.
        replaced: Files that an earlier upload left there and that are removed.
        url: Where it is, once it is there.
    """

    repository: str
    files: dict[str, int]
    texts: dict[str, str]
    left_out: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    url: str | None = None

    def lines(self) -> list[str]:
        """What is said of it."""
        total = sum(self.files.values())
        done = f"{self.url}: uploaded" if self.url else f"would upload to {self.repository}:"
        return [
            f"{done} ({len(self.files)} files, {total / (1 << 20):,.1f} MiB)",
            *(f"  {name}, {size:,} bytes" for name, size in self.files.items()),
            *(f"  {name}: removed, of an earlier upload" for name in self.replaced),
            *(f"  {name}: not uploaded, it is no part of a model" for name in self.left_out),
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
        InputError: It is no repository's name, or a file names a folder of this machine in a way
            that is not known.
    """
    check_repository(repository)
    recipe = read_recipe(folder / RECIPE_FILE)
    local = {
        member.source: name
        for name, member in recipe.members.items()
        if Path(member.source).is_absolute()
    }
    texts: dict[str, str] = {}
    files: dict[str, int] = {}
    left_out = []
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        if not _is_published(path.name):
            left_out.append(path.name)
            continue
        files[path.name] = path.stat().st_size
        if path.suffix not in TEXTS:
            continue
        before = path.read_text(encoding="utf-8")
        text = _published(path.name, before, recipe, local)
        _require_clean(path, text, local)
        if text != before:
            texts[path.name] = text
            files[path.name] = len(text.encode())
    return Upload(repository, files, texts, tuple(left_out))


def upload(folder: Path, planned: Upload, *, is_private: bool) -> Upload:
    """Upload a folder in one commit, in which what an earlier upload left there is removed.

    Raises:
        InputError: The repository is there, and others can see it than is asked for, or it has a
            model that was not uploaded by this project.
        EvomergeError: The hub refuses it, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    stored = files_there(planned.repository, is_private=is_private)
    if RECIPE_FILE not in stored and any(map(_is_published, stored)):
        raise InputError(
            f"--push-to-hub: {planned.repository} has a model that evomerge did not upload; name "
            "another repository, or remove the model there"
        )
    planned = replace(planned, replaced=tuple(stale(stored, planned)))
    operations: list[Any] = [CommitOperationDelete(name) for name in planned.replaced]
    for name in planned.files:
        content = planned.texts[name].encode() if name in planned.texts else folder / name
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content))
    with _asking(planned.repository):
        api = HfApi()
        created = api.create_repo(planned.repository, private=is_private, exist_ok=True)
        api.create_commit(
            planned.repository, operations, commit_message="A merge found by evomerge"
        )
    return replace(planned, url=str(created))


def stale(stored: Iterable[str], planned: Upload) -> list[str]:
    """Files of an earlier upload that would be read with, or in the place of, the new ones."""
    return sorted(n for n in stored if _is_published(n) and n not in planned.files)


def files_there(repository: str, *, is_private: bool) -> list[str]:
    """The files of a repository that can be written to; none if it is not there yet.

    Raises:
        InputError: Others can see it than is asked for.
        EvomergeError: The hub cannot be reached, or knows no user here.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    with _asking(repository):
        api = HfApi()
        api.whoami()
        try:
            info = api.model_info(repository)
        except RepositoryNotFoundError:
            return []
    if bool(info.private) != is_private:
        remedy = "leave --public out" if info.private else "add --public"
        raise InputError(
            f"--push-to-hub: {repository} is there already and is "
            f"{'private' if info.private else 'public'}; {remedy}, or name another repository"
        )
    return [each.rfilename for each in info.siblings or ()]


@contextmanager
def _asking(repository: str) -> Iterator[None]:
    """Make what the hub's library raises an error of this project."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (those of its HTTP library have no common class)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:300] or type(error).__name__
        raise EvomergeError(f"--push-to-hub: {repository} cannot be written: {reason}") from None


def _is_published(name: str) -> bool:
    # A hub's files in folders are none of a checkpoint.
    return "/" not in name and any(fnmatch(name, pattern) for pattern in PUBLISHED)


def _published(name: str, text: str, recipe: Recipe, local: Mapping[str, str]) -> str:
    """A file's text with models' names in the place of their folders."""
    if name == CARD_FILE:
        return _published_card(text, recipe, local)
    if name == RECIPE_FILE:
        return _published_recipe(recipe, local).to_yaml() if local else text
    if name == MERGEKIT_FILE:
        said = yaml.safe_load(text)
        renamed = _renamed(said, local)
        return text if renamed == said else str(yaml.safe_dump(renamed, sort_keys=False))
    if name.endswith(".json") and name != "tokenizer.json":
        said = json.loads(text)
        cleaned = _without_places(_renamed(said, local))
        _require_no_places(name, cleaned)
        return text if cleaned == said else json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n"
    return text


def _published_card(text: str, recipe: Recipe, local: Mapping[str, str]) -> str:
    head, dashes, body = text.removeprefix("---\n").partition("\n---\n")
    if dashes and text.startswith("---\n"):
        facts = yaml.safe_load(head)
        if bases := [each for each in facts.pop("base_model", ()) if each not in local]:
            facts["base_model"] = bases
        text = f"---\n{str(yaml.safe_dump(facts, sort_keys=False)).rstrip()}\n---\n{body}"
    shown = _published_recipe(recipe, local).to_yaml().rstrip()
    text = _WRITTEN_BY.sub("", text.replace(recipe.to_yaml().rstrip(), shown))
    # Longer ones first: one folder may lie in another.
    for source in sorted(local, key=len, reverse=True):
        text = text.replace(source, local[source])
    if local:
        names = ", ".join(sorted(local.values()))
        text += (
            f"\nSome models of the recipe were folders of somebody's own: {names}. To build the "
            "recipe, write in the place of each such `source` the folder of a model with its "
            "SHA-256.\n"
        )
    return text


def _published_recipe(recipe: Recipe, local: Mapping[str, str]) -> Recipe:
    members = {
        name: member.model_copy(update={"source": local.get(member.source, member.source)})
        for name, member in recipe.members.items()
    }
    return recipe.model_copy(update={"members": members})


def _renamed(value: Any, local: Mapping[str, str]) -> Any:
    """Data with models' names in the place of their folders."""
    if isinstance(value, dict):
        return {key: _renamed(inner, local) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, local) for inner in value]
    if not isinstance(value, str):
        return value
    # mergekit writes an adapter behind its base: `base+adapter`.
    if value in local:
        return local[value]
    return "+".join(local.get(part, part) for part in value.split("+"))


def _without_places(value: Any) -> Any:
    """Settings without the folders that transformers has noted in them."""
    if isinstance(value, list):
        return [_without_places(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_places(inner)
        for key, inner in value.items()
        if not (key.endswith(_OF_FILES) and isinstance(inner, str) and Path(inner).is_absolute())
    }


def _require_no_places(name: str, value: Any, key: str = "") -> None:
    """Refuse settings that still name a file or folder of a machine."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            _require_no_places(name, inner, inner_key)
    elif isinstance(value, list):
        for inner in value:
            _require_no_places(name, inner, key)
    elif isinstance(value, str) and _PLACE.fullmatch(value):
        raise InputError(
            f"--push-to-hub: {name} has {value!r} under {key!r}, a place of a machine, and cannot "
            "be uploaded with it; take it out of the file"
        )


def _require_clean(path: Path, text: str, local: Iterable[str]) -> None:
    """Refuse to publish a text that still has a model's folder, in whichever letters."""
    home = str(Path.home())
    for source in (*local, *([f"{home}/"] if home.count("/") > 1 else [])):
        written = (source, json.dumps(source)[1:-1], yaml.safe_dump(source, width=1 << 20).strip())
        if any(form.strip("'\"") in text for form in written):
            raise InputError(
                f"--push-to-hub: {path} names {source!r}, a folder of this machine, and cannot be "
                "uploaded with it; take it out of the file"
            )
