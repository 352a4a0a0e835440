"""YAML and JSON are read within limits; whatever is wrong is one message with its line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.models.chain import open_mergekit
from evomerge.reading import (
    MAX_DEPTH,
    MAX_DIGITS,
    LimitError,
    compose_yaml,
    load_json,
    load_yaml,
    read_text,
)
from evomerge.recipe import Recipe, read_recipe

ATTACKS_DIR = Path(__file__).parents[2] / "shared/attacks"


def said_of(text: str, read=load_yaml) -> list[str]:
    with pytest.raises(InputError) as info:
        read(text, "f")
    lines = str(info.value).splitlines()
    assert len(lines) <= 5 and all(len(line) <= 400 for line in lines)
    return lines


def multiplied(line: str) -> str:
    """Each of ten lines names the one before nine times."""
    return "a0: &a0 {k: 1}\n" + "".join(
        line.format(n=n, m=n - 1, many=", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 10)
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2", "f:2: not YAML: did not find expected ',' or ']'"),
        ("a: 1\nb: c: d", "f:2: not YAML: mapping values are not allowed in this context"),
        ("a: !!bool maybe", "f:1: 'maybe' is no truth value"),
        ("a: !!int ''", "f:1: '' is no integer"),
        ("a: !!float x", "f:1: 'x' is no number"),
        ("a: !!timestamp x", "f:1: the tag !!timestamp means nothing here; leave it out"),
        ("a: !!python/object/apply:os.getcwd []", "f:1: the tag !!python/object/apply:os.getcwd"),
        ("a: !function os.getcwd", "f:1: the tag !function means nothing here"),
        ("- " + "9" * (MAX_DIGITS + 1), "f:1: '9999"),
        ('a: "x\\0y"', "f:1: the text has a NUL character"),
        ("a: x\n\x00", "f:2: the character '\\x00' is not allowed in YAML"),
        ("a: 1\nb: 2\na: 3", "f:3: 'a' stands in line 1 already; remove one"),
        ("a: {b: 1, c: 2, b: 3}", "f:1: 'b' stands in line 1 already; remove one"),
        ("a: &a [*a]", "f:1: *a stands inside itself"),
        ("[" * 100 + "]" * 100, f"f:1: lists and mappings lie deeper than {MAX_DEPTH}"),
        ("a:\n" + "".join(" " * n + "-\n" for n in range(1, 100)), "f:65: lists and mappings lie"),
        (multiplied("a{n}: &a{n} [{many}]\n"), "f:7: more than 1,000,000 values"),
        (multiplied("a{n}: &a{n} {{<<: [{many}], k{n}: 1}}\n"), "f:7: more than 1,000,000 values"),
        (
            "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}}}\n" for n in range(1, 99)),
            f"f:64: lists and mappings lie deeper than {MAX_DEPTH}",
        ),
        ("? [a]\n: 1", "f:1: not YAML: a list or a mapping cannot be a key"),
        ("a: 1\n---\nb: 1", "f:2: not YAML: but found another document"),
    ],
)
def test_what_is_wrong_with_yaml(text, says):
    assert said_of(text)[0].startswith(says)


def test_the_line_is_shown_with_a_caret():
    assert said_of("a:\n  b:   c: d") == [
        "f:2: not YAML: mapping values are not allowed in this context",
        "    b:   c: d",
        "          ^",
    ]
    long = said_of(f"{'x' * 500}: a: {'y' * 500}")
    assert long[1][len(long[2]) - 1] == ":" and len(long[1]) < 110


def test_values_are_those_of_yaml_but_dates_and_equal_signs_stay_text():
    text = "a: 2024-01-31\nb: 2024-99-99\nc: =\nd: [1_000, 0x1f, 1:30, .5, .inf, yes, ~, 'yes']\n"
    assert load_yaml(text, "f") == {
        "a": "2024-01-31",
        "b": "2024-99-99",
        "c": "=",
        "d": [1000, 31, 90, 0.5, float("inf"), True, None, "yes"],
    }
    merged = load_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: [*a]}\n", "f")
    assert merged["b"] == {"x": 3, "y": 2} and merged["c"] == {"x": 1, "y": 2}
    assert load_yaml("", "f") is None and load_yaml("# nothing\n", "f") is None


def test_random_plain_data_is_what_pyyaml_reads():
    draw = random.Random(0)

    def value(depth: int):
        kind = draw.randrange(8 if depth < 5 else 6)
        if kind == 6:
            return [value(depth + 1) for _ in range(draw.randrange(4))]
        if kind == 7:
            return {f"k{n}": value(depth + 1) for n in range(draw.randrange(4))}
        return [draw.randrange(-(10**9), 10**9), draw.random(), True, None, "a: b", "1e5"][kind]

    for _ in range(200):
        text = yaml.safe_dump(value(0), default_flow_style=draw.choice((True, False, None)))
        assert load_yaml(text, "f") == yaml.safe_load(text)


def test_nodes_keep_tags_that_mean_nothing_here():
    node = compose_yaml("a: !function x.y", "f")
    assert isinstance(node, yaml.MappingNode) and node.value[0][1].tag == "!function"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,\n"b" 2}', "f:2: not JSON: expecting ':' delimiter"),
        ("[" * 100_000, "f: lists and mappings lie deeper"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "f: lists and mappings lie deeper"),
        ('{"a": "\\ud800"}', "f: half of a surrogate pair is no character"),
        ("1" + "0" * 400, "f: an integer of 401 digits; valid: 300 at most"),
    ],
)
def test_what_is_wrong_with_json(text, says):
    assert said_of(text, load_json)[0].startswith(says)


def test_json_is_read_as_it_is():
    data = {"a": [1, 2.5, None, True], "b": "\N{GRINNING FACE}é", "c": {"d": [[[]]]}}
    assert load_json(json.dumps(data), "f") == data
    assert load_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a\nb\xff", ":2: cannot read it: not UTF-8"), (b"x" * 33, "cannot read it: more than 32")],
)
def test_what_is_no_text_or_too_large_is_said(content, says, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_text(path, "it", max_bytes=32)


@pytest.mark.parametrize("name", ["x" * 300, "x\0y", "x/" * 3000 + "y", "missing", "."])
def test_what_is_no_file_is_said(name, tmp_path):
    with pytest.raises(InputError, match="cannot read it: ") as info:
        read_text(tmp_path / name, "it")
    assert len(str(info.value)) < 400


def test_limits_are_told_apart():
    with pytest.raises(LimitError):
        load_yaml("[" * 100, "f")
    with pytest.raises(InputError) as info:
        load_yaml("[", "f")
    assert not isinstance(info.value, LimitError)


def read_and_write_again(path: Path) -> None:
    recipe = read_recipe(path)
    assert Recipe.from_json(recipe.to_json()).sha256 == recipe.sha256
    assert recipe.to_yaml()


@pytest.mark.skipif(not ATTACKS_DIR.is_dir(), reason="shared/attacks is absent")
@pytest.mark.parametrize(
    ("kind", "read"),
    [("config", load_config), ("recipe", read_and_write_again), ("mergekit", open_mergekit)],
)
def test_known_attacks_are_one_message_each(kind, read, tmp_path, monkeypatch):
    # Chains of mergekit's are built there.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths = sorted((ATTACKS_DIR / kind).glob("*.yaml"))
    assert len(paths) >= 6
    for path in paths:
        content = path.read_bytes().replace(
            b"REPO/", str(Path(__file__).parents[1]).encode() + b"/"
        )
        copy = tmp_path / path.name
        copy.write_bytes(content)
        try:
            read(copy)
        except InputError as error:
            lines = str(error).splitlines()
            assert len(lines) <= 5 and all(len(line) <= 400 for line in lines), path
