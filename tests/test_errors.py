"""What a message says would be valid."""

from __future__ import annotations

import pytest

from evomerge.errors import closest

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
