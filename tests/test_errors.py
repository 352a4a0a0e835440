"""What a message says would be valid."""

from __future__ import annotations

import pytest

from evomerge.errors import InputError, closest

NAMES = [f"name{number:02d}" for number in range(20)]


@pytest.mark.parametrize(
    ("name", "valid", "says"),
    [
        ("tis", ["linear", "ties"], "did you mean 'ties'? valid: linear, ties"),
        ("other", ["linear", "ties"], "valid: linear, ties"),
        ("other", [], "valid: none"),
        ("x", NAMES[:12], f"valid: {', '.join(NAMES[:12])}"),
        ("x", NAMES[:13], f"valid: {', '.join(NAMES[:12])} and 1 more"),
        ("x", iter(NAMES), f"valid: {', '.join(NAMES[:12])} and 8 more"),
    ],
)
def test_the_nearest_and_a_dozen(name, valid, says):
    assert closest(name, valid) == says


def test_a_message_is_cut_to_five_lines_of_four_hundred_letters():
    assert str(InputError("a\nb\nc\nd\ne")) == "a\nb\nc\nd\ne"
    assert str(InputError("1\n2\n3\n4\n5\n6\n7")) == "1\n2\n3\n(3 more lines)\n7"
    long = str(InputError(f"no file {'x' * 5000}: it is missing"))
    assert len(long) <= 400 and long.startswith("no file x") and long.endswith("x: it is missing")
