"""Good files broken: bytes, lines, and the values of YAML and JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any, Literal

import yaml

Form = Literal["yaml", "json", "lines", "tensors", "text"]

STUMBLES: tuple[Any, ...] = (
    None, True, False, "", " ", "x", "x" * 300, "x" * 5000, 0, 1, -1, 2, 3.5, 1e308, -1e308,
    10**9, -(10**9), 2**31, 2**63, 2**64, 10**18, 10**30, 10**400, float("inf"), float("nan"),
    1e-320, [], {}, [[]], [None], [1, 2, 3], ["a", "a"], {"a": 1}, {"": ""}, {"kind": "linear"},
    {"kind": None}, "../../../etc/passwd", "/etc/passwd", "/dev/null", "/dev/zero", "~root/x",
    "~nobody-at-all/x", "a\0b", "a\nb", "\ud800", "é" * 200, "base", "merged", "NaN", "1e999",
    "yes", "2024-99-99", "org/model@main", "--set", "*", "[", "{", "(((((((((((((((((((", "(a+)+$",
    "{{ 1/0 }}", "{% for i in range(10**9) %}x{% endfor %}", "{{ x.__class__ }}",
)  # fmt: skip
"""Values that readers stumble over."""

WORDS = (
    b"!!bool maybe", b"!!int ''", b"!!float x", b"!!timestamp x", b"!!binary ????", b"!!set {a}",
    b"!!omap [a]", b"!!python/object/apply:os.system [true]", b"!function os.system",
    b"!include x", b"2024-99-99", b"2024-01-01T99:99:99", b"0x", b"0b2", b"0o9", b"1_000",
    b"1:99:99", b"=", b"9" * 5000, b"1" + b"0" * 400, b"[" * 200, b"{a: " * 100, b"- " * 100,
    b"*a", b"&a", b"&a [*a]", b"<<: *a", b"<<: 3", b"<<: [*a, *a]", b"? [a]", b"%YAML 9.9\n---\n",
    b"---\n", b"...\n", b"\xff\xfe", b"\x00", b"\x07", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\t",
    b"\r", b"\x85", b"\xe2\x80\xa8", b"'", b'"', b"|", b">", b"#", b": ", b"\\ud800", b"\\u0000",
    b'"\\x00"', b"NaN", b"Infinity", b"-", b"}", b"]", b",",
)  # fmt: skip
"""Text that readers stumble over."""

BOMB = b"""
a0: &a0 [x, x, x, x, x, x, x, x, x]
""" + b"".join(
    b"a%d: &a%d [%s]\n" % (n + 1, n + 1, b", ".join([b"*a%d" % n] * 9)) for n in range(9)
)

MERGES = b"""
m0: &m0 {k: 1, l: 2, m: 3}
""" + b"".join(
    b"m%d: &m%d {<<: [%s], k%d: 1}\n" % (n + 1, n + 1, b", ".join([b"*m%d" % n] * 9), n)
    for n in range(9)
)


def broken(good: bytes, form: Form, random: Random) -> bytes:
    """A good file with one to three faults."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        good = random.choice(_WAYS[form])(good, random)
    return good


def _byte(content: bytes, random: Random) -> bytes:
    if not content:
        return bytes([random.randrange(256)])
    at = random.randrange(len(content))
    new = bytes([random.randrange(256)])
    return content[:at] + random.choice((b"", new, new + content[at : at + 1])) + content[at + 1 :]


def _cut(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    return random.choice((content[:at], content[at:], b"", content[:at] + content[at:] * 2))


def _word(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + random.choice(WORDS) + content[at:]


def _value_as_text(content: bytes, random: Random) -> bytes:
    """What stands behind a colon in a line, replaced."""
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    key, colon, _ = lines[at].partition(b":")
    lines[at] = key + colon + b" " + random.choice(WORDS)
    return b"\n".join(lines)


def _line(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    line = lines.pop(at)
    for _ in range(random.choice((0, 1, 2))):
        lines.insert(to, random.choice((line, b"  " + line, line.lstrip())))
    return b"\n".join(lines)


def _bomb(content: bytes, random: Random) -> bytes:
    return content + random.choice((BOMB, MERGES, BOMB + b"name: *a9\n", MERGES + b"<<: *m9\n"))


def _tree(data: Any, random: Random) -> Any:
    """A tree with one value changed, renamed, doubled, taken away or put deeper."""
    data = copy.deepcopy(data)
    places: list[tuple[Any, Any]] = []
    waiting = [data]
    while waiting:
        current = waiting.pop()
        items = current.items() if isinstance(current, dict) else enumerate(current)
        for key, value in items:
            # Of a vocabulary a few entries do.
            if len(places) < 400:
                places.append((current, key))
            if isinstance(value, dict | list):
                waiting.insert(0, value)
    if not places:
        return random.choice(STUMBLES)
    outer, key = random.choice(places)
    way = random.randrange(6)
    if way <= 2:
        outer[key] = random.choice(STUMBLES)
    elif way == 3:
        del outer[key]
    elif way == 4 and isinstance(outer, dict):
        name = random.choice(STUMBLES)
        outer[name if isinstance(name, str | int | float) else str(name)] = outer[key]
    else:
        other, there = random.choice(places)
        outer[key] = copy.deepcopy(other[there]) if random.random() < 0.7 else [outer[key]]
    return data


def _yaml_tree(content: bytes, random: Random) -> bytes:
    if b"&a9" in content or b"&m9" in content:
        return _byte(content, random)  # PyYAML itself would read it for hours.
    try:
        changed = _tree(yaml.safe_load(content), random)
        return yaml.safe_dump(changed, sort_keys=False, allow_unicode=True).encode(
            "utf-8", "surrogatepass"
        )
    except Exception:  # noqa: BLE001  (what is broken already)
        return _byte(content, random)


def _json_tree(content: bytes, random: Random) -> bytes:
    try:
        return json.dumps(_tree(json.loads(content), random)).encode()
    except Exception:  # noqa: BLE001  (what is broken already)
        return _byte(content, random)


def _json_line(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = _json_tree(lines[at], random)
    return b"\n".join(lines)


def _header(content: bytes, random: Random) -> bytes:
    """A safetensors file whose header is broken, or of another length than it says."""
    length = int.from_bytes(content[:8], "little")
    if length > len(content):
        return _byte(content, random)
    header, rest = content[8 : 8 + length], content[8 + length :]
    if random.random() < 0.3:
        said = random.choice((0, 1, abs(length - 1), length + 1, 2**31, 2**63, 2**64 - 1))
        return said.to_bytes(8, "little") + header + rest
    header = random.choice((_json_tree, _byte, _cut, _word))(header, random)
    return len(header).to_bytes(8, "little") + header + rest


Way = Callable[[bytes, Random], bytes]

_WAYS: dict[Form, tuple[Way, ...]] = {
    "yaml": (_yaml_tree, _yaml_tree, _yaml_tree, _value_as_text, _word, _line, _byte, _cut, _bomb),
    "json": (_json_tree, _json_tree, _json_tree, _json_tree, _word, _byte, _cut),
    "lines": (_json_line, _json_line, _json_line, _line, _word, _byte, _cut),
    "tensors": (_header, _header, _cut),
    "text": (_word, _byte, _cut, _value_as_text),
}
