"""Answers kept in a folder across runs: what a recipe answered once is not asked again.

A file holds what one recipe answered to one block, since batches are a function of the block. Its
name is a hash of all that the answers depend on. The split is part of it: answers to holdout
documents are found by an opened holdout alone.
"""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.files import canonical_json, sha256_json, write_text
from evomerge.score import Answers

logger = logging.getLogger(__name__)

ENGINE_VERSION = 3
"""Of everything between a recipe with a request's tokens and the answer, merging included; a new
one finds nothing of an old."""

CHECK_EVERY = 0.05
"""Share of the limit that a writer adds before it looks at the folder's size again."""

_NAME = re.compile(r"\.?[0-9a-f]{62}\.json(\.[0-9a-f]+)?")
"""A file of the cache, or what a writer that was killed left of one; others are nobody's but the
user's."""

LEFT = 0.9
"""Share of the limit that is left where a folder was too large."""


class AnswerCache:
    """A folder of answers, for any number of writers.

    Args:
        folder: Made where it is not there.
        size_bytes: How large it may become; files that nobody read for the longest go first.
        context: What all answers of this process depend on, as JSON.

    Raises:
        InputError: The folder cannot be made.
    """

    def __init__(self, folder: Path, size_bytes: int, context: dict[str, Any]) -> None:
        self._folder = folder
        self._size_bytes = size_bytes
        self._context = sha256_json({"version": ENGINE_VERSION, **context})
        self._added_bytes = 0
        self._has_warned = False
        make_folder(folder)
        self.prune()

    def key(self, recipe_sha256: str, split: str, requests_sha256: str) -> str:
        """The name of what a recipe answers to a block's requests."""
        return sha256_json([self._context, recipe_sha256, split, requests_sha256])

    def find(self, key: str) -> Answers | None:
        """What is kept under a name."""
        path = self._path(key)
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            kept = held["answers"]
            if held["sha256"] != sha256_json([key, kept]):
                raise ValueError("it is not what was written")
            answers = Answers(
                [[_answer(one) for one in responses] for responses in kept["responses"]],
                kept["num_new_tokens"],
                kept["num_cut"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            # It is asked again, and replaced.
            logger.warning("score.cache: %s cannot be read: %s", path, error)
            return None
        with suppress(OSError):
            os.utime(path)
        return answers

    def keep(self, key: str, answers: Answers) -> None:
        """Keep answers; a folder that cannot be written is said once and does no harm."""
        kept = asdict(answers)
        try:
            text = canonical_json({"answers": kept, "sha256": sha256_json([key, kept])})
            # A crash of the machine costs no more than to ask again.
            write_text(self._path(key), text, durable=False)
        except (OSError, UnicodeEncodeError) as error:
            if not self._has_warned:
                logger.warning("score.cache: %s cannot be written: %s", self._folder, error)
            self._has_warned = True
            return
        self._added_bytes += len(text)
        if self._added_bytes > CHECK_EVERY * self._size_bytes:
            self.prune()

    def prune(self) -> None:
        """Delete the files that nobody read for the longest, where there are too many."""
        self._added_bytes = 0
        files: list[tuple[float, int, Path]] = []
        for folder in (self._folder / f"{number:02x}" for number in range(256)):
            # Another writer may have deleted a file, or a person the folder.
            with suppress(OSError):
                for entry in os.scandir(folder):
                    if _NAME.fullmatch(entry.name):
                        with suppress(OSError):
                            found = entry.stat()
                            files.append((found.st_mtime, found.st_size, Path(entry.path)))
        left = sum(size for _, size, _ in files)
        if left <= self._size_bytes:
            return
        for _, size, path in sorted(files, key=lambda file: file[0]):
            if left <= LEFT * self._size_bytes:
                break
            with suppress(OSError):
                path.unlink()
            left -= size

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key[2:]}.json"


def make_folder(folder: Path) -> None:
    """Make a cache's folder where it is not there.

    Raises:
        InputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"score.cache.folder: {folder} cannot be created: {error.strerror}; name a folder "
            "that you may write"
        ) from None


def _answer(value: Any) -> Any:
    """An answer as lm-eval's models give it: pairs are tuples."""
    return tuple(value) if isinstance(value, list) else value
