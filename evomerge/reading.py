"""YAML and JSON that people write, read within limits: whatever is wrong is one message.

Every file of a configuration, a recipe, a task or a model folder that is YAML or JSON comes through
here. Nothing is made from it but plain values; dates stay text.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import InputError, shorten

MAX_DEPTH = 64
"""How deep lists and mappings may lie in each other."""

MAX_VALUES = 1_000_000
"""How many values a YAML file may have, those of aliases counted wherever they stand."""

MAX_DIGITS = 300
"""The digits of the longest integer; every one of so many is a finite float64 too."""

MAX_YAML_BYTES = 64 * 2**20

MAX_JSON_BYTES = 256 * 2**20
"""A tokenizer of a quarter of a million tokens takes forty megabytes."""

_NO_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML does not allow anywhere."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class LimitError(InputError):
    """A file is larger or deeper than what is read here."""


def read_text(path: Path, what: str, max_bytes: int = MAX_YAML_BYTES) -> str:
    """A text file (UTF-8).

    Args:
        path: The file.
        what: What it is, for the message ("the configuration").
        max_bytes: How large it may be.

    Raises:
        InputError: It cannot be read, is too large, or is no text.
    """
    try:
        # Opening a pipe waits for whoever writes; a shell's own lies in /dev.
        if path.is_fifo() and not path.is_relative_to("/dev"):
            raise OSError(errno.EINVAL, "it is a pipe")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shorten(str(path), 200)}: cannot read {what}: {reason}") from None
    if len(content) > max_bytes:
        raise LimitError(f"{path}: cannot read {what}: more than {max_bytes:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: cannot read {what}: not UTF-8 ({error.reason} at byte {error.start})"
        ) from None


def whole_path(name: str, folder: Path, setting: str) -> Path:
    """A path that somebody names; whether there is anything is another matter.

    Args:
        name: As it is written; "~" is the home of a user.
        folder: What it is relative to.
        setting: Where it is written, for the message.

    Raises:
        InputError: No file can have such a path.
    """
    try:
        given = Path(name).expanduser()
    except RuntimeError:
        user = shorten(repr(name.partition("/")[0]), 100)
        raise InputError(f"{setting}: there is no user {user}") from None
    try:
        # No file system has longer ones.
        if any(len(os.fsencode(part)) > 255 for part in Path(name).parts):
            raise ValueError("a name in it has more than 255 bytes")
        path = (folder / given).resolve()
        if len(os.fsencode(path)) > 4095:
            raise ValueError("it has more than 4,095 bytes")
        return path
    except (RuntimeError, ValueError, OSError) as error:
        said = shorten(repr(name), 100)
        raise InputError(f"{setting}: {said} is no path: {first_line(error)}") from None


def load_yaml(text: str, source: str | Path, *, numbered: bool = True) -> Any:
    """The value of a YAML document.

    Args:
        text: The document.
        source: Where it stands, for the message.
        numbered: Whether the message names the line.

    Returns:
        A tree of dicts, lists, strings, numbers, booleans and None. Dates and times are strings.

    Raises:
        InputError: It is not YAML, a key stands twice in one mapping, or it is larger or deeper
            than the limits of this module, with the line.
    """
    return compose_and_load(text, source, numbered=numbered)[1]


def compose_and_load(
    text: str, source: str | Path, *, numbered: bool = True
) -> tuple[yaml.Node | None, Any]:
    """The tree of nodes of a YAML document, which know their lines, and its value.

    See `load_yaml`.
    """
    with _told(text, source, numbered), _loader_of(text) as loader:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_keys(node)
        return node, loader.construct_document(node)


def compose_and_load_all(text: str, source: str | Path) -> list[tuple[yaml.Node, Any]]:
    """The same of every document of a text, in order."""
    found = []
    with _told(text, source, numbered=True), _loader_of(text) as loader:
        while loader.check_node():
            node = loader.get_node()
            _check_keys(node)
            found.append((node, loader.construct_document(node)))
    return found


def compose_yaml(text: str, source: str | Path, *, numbered: bool = True) -> yaml.Node | None:
    """The tree of nodes of a YAML document, whatever its tags; None if there is no document.

    Raises:
        InputError: It is not YAML, or larger or deeper than the limits of this module.
    """
    with _told(text, source, numbered), _loader_of(text) as loader:
        node: yaml.Node | None = loader.get_single_node()
        return node


def load_json(text: str, source: str | Path) -> Any:
    """The value of a JSON document.

    Raises:
        InputError: It is not JSON, or deeper than the limit of this module.
    """
    try:
        value = json.loads(text, parse_int=_json_integer)
    except json.JSONDecodeError as error:
        shown = _shown(text, error.lineno - 1, error.colno - 1)
        problem = error.msg[:1].lower() + error.msg[1:]
        raise InputError(f"{source}:{error.lineno}: not JSON: {problem}{shown}") from None
    except RecursionError:
        raise LimitError(f"{source}: {_TOO_DEEP}") from None
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _nested(outer)]
    if level:
        raise LimitError(f"{source}: {_TOO_DEEP}")
    escapes = "\\ud" in text or "\\uD" in text
    if escapes and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise InputError(f"{source}: half of a surrogate pair is no character")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file.

    Raises:
        InputError: It cannot be read, or is no JSON object.
    """
    data = load_json(read_text(path, "it", MAX_JSON_BYTES), path)
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a JSON object")
    return data


def first_line(error: BaseException, length: int = 300) -> str:
    """What a library says went wrong, in one line; its class, where it says nothing."""
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else ""
    # Such errors have nothing but the name that was looked for.
    is_bare = isinstance(error, LookupError | AttributeError | ArithmeticError) or not said
    return shorten(f"{type(error).__name__}: {said}".rstrip(": ") if is_bare else said, length)


_TOO_DEEP = f"lists and mappings lie deeper than {MAX_DEPTH} in each other"

_YAML = "tag:yaml.org,2002:"

_KINDS = {"int": "integer", "float": "number", "bool": "truth value", "str": "text", "null": "null"}


class _Refused(yaml.MarkedYAMLError):
    """It is YAML, and not read here."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _BeyondLimits(_Refused):
    """It is too large, or too deep."""


class _Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Makes plain values alone; libyaml reads them, where PyYAML has it."""

    def scalar(self, node: yaml.Node) -> Any:
        """A text, a number, a truth value or null."""
        kind = node.tag.removeprefix(_YAML)
        try:
            if kind == "int":
                _check_digits(str(node.value))
            value = yaml.SafeLoader.yaml_constructors[node.tag](self, node)
        except yaml.YAMLError:
            raise
        except (ValueError, LookupError, ArithmeticError, AttributeError):
            said = shorten(str(node.value), 60)
            raise _Refused(f"{said!r} is no {_KINDS[kind]}", node.start_mark) from None
        if isinstance(value, str) and "\0" in value:
            raise _Refused("the text has a NUL character", node.start_mark)
        return value

    def undefined(self, node: yaml.Node) -> Any:
        """A value whose tag asks for something else."""
        tag = shorten(node.tag.replace(_YAML, "!!", 1), 60)
        raise _Refused(f"the tag {tag} means nothing here; leave it out", node.start_mark)


_Plain.yaml_constructors = {
    **{_YAML + kind: _Plain.scalar for kind in _KINDS},
    **{_YAML + kind: yaml.SafeLoader.yaml_constructors[_YAML + kind] for kind in ("map", "seq")},
    None: _Plain.undefined,
}
_Plain.yaml_implicit_resolvers = {
    letter: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in (f"{_YAML}timestamp", f"{_YAML}value")
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@contextmanager
def _loader_of(text: str) -> Iterator[Any]:
    """A loader of a text that is within the limits."""
    no_text = _NO_TEXT.search(text)
    if no_text is not None:
        line = text.count("\n", 0, no_text.start())
        column = no_text.start() - (text.rfind("\n", 0, no_text.start()) + 1)
        mark = yaml.Mark("", no_text.start(), line, column, None, 0)
        raise _Refused(f"the character {no_text[0]!a} is not allowed in YAML", mark)
    _check_size(text)
    loader = _Plain(text)
    try:
        yield loader
    finally:
        loader.dispose()


def _check_size(text: str) -> None:
    """Refuse what would take long to compose, or more memory than the text."""
    values = 0
    # Of what has an anchor: how many values, and how deep.
    whole: dict[str, tuple[int, int]] = {}
    # Of what has begun: its anchor, the values before it, and how deep it has been so far.
    begun: list[tuple[str | None, int, int]] = []

    def note(depth: int, mark: Any) -> None:
        if begun:
            anchor, before, deepest = begun[-1]
            begun[-1] = anchor, before, max(deepest, depth)
        if len(begun) + depth > MAX_DEPTH:
            raise _BeyondLimits(_TOO_DEEP, mark)

    for event in yaml.parse(text, Loader=_Plain):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before, deepest = begun.pop()
            if anchor is not None:
                whole[anchor] = values - before, deepest + 1
            note(deepest + 1, event.start_mark)
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, *_ in begun):
                raise _Refused(f"*{event.anchor} stands inside itself", event.start_mark)
            number, depth = whole.get(str(event.anchor), (1, 0))
            values += number
            note(depth, event.start_mark)
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                begun.append((event.anchor, values - 1, 0))
                note(0, event.start_mark)
        if values > MAX_VALUES:
            raise _BeyondLimits(f"more than {MAX_VALUES:,} values", event.start_mark)


def _check_keys(node: yaml.Node) -> None:
    """Refuse a mapping that has a key twice: only the last would count."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, yaml.SequenceNode):
            waiting += current.value
        elif isinstance(current, yaml.MappingNode):
            found: dict[tuple[str, str], yaml.Mark] = {}
            for key, value in current.value:
                waiting += (key, value)
                if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_YAML}merge":
                    continue
                mark = key.start_mark
                first = found.setdefault((key.tag, key.value), mark)
                if first is not mark:
                    said, line = shorten(key.value, 60), first.line + 1
                    raise _Refused(f"{said!r} stands in line {line} already; remove one", mark)


@contextmanager
def _told(text: str, source: str | Path, numbered: bool) -> Iterator[None]:
    """Tell errors of PyYAML with the line, and a caret under the column."""
    try:
        yield
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = shorten(getattr(error, "problem", None) or first_line(error), 200)
        if "unhashable key" in problem:
            problem = "a list or a mapping cannot be a key"
        if not isinstance(error, _Refused):
            problem = f"not YAML: {problem}"
        if mark is None:
            raise InputError(f"{source}: {problem}") from None
        place = f"{source}:{mark.line + 1}" if numbered else str(source)
        kind = LimitError if isinstance(error, _BeyondLimits) else InputError
        raise kind(f"{place}: {problem}{_shown(text, mark.line, mark.column)}") from None


def _shown(text: str, line: int, column: int) -> str:
    """Two lines of a message: a line of a text, and a caret under a column; both from 0."""
    lines = text.splitlines()
    if line >= len(lines):
        return ""
    start = max(0, column - 60)
    shown = "".join(letter if letter.isprintable() else " " for letter in lines[line])
    return f"\n  {shown[start : start + 100]}\n  {' ' * (column - start)}^"


def _json_integer(text: str) -> int:
    _check_digits(text)
    return int(text)


def _check_digits(text: str) -> None:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text):,} digits; valid: {MAX_DIGITS} at most")


def _nested(outer: Any) -> list[Any]:
    inside = outer.values() if isinstance(outer, dict) else outer
    return [inner for inner in inside if isinstance(inner, dict | list)]
