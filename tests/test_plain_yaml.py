"""Recipes' YAML has the bytes that PyYAML writes."""

from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from evomerge.plain_yaml import dump_plain

ODD = [
    "yes",
    "null",
    "~",
    "1",
    "1.5",
    "1e3",
    "0x1f",
    "2026-11-26",
    "12:30",
    "=",
    "-",
    "-a",
    "{a}",
    "*a",
    "&a",
    "!a",
    "%a",
    "'a'",
    "---",
    "a:",
]
TEXTS = st.text() | st.sampled_from([*ODD, "a: b", "a # b", "- a", "a\n", "\ta", "weight " * 30])
SCALARS = TEXTS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)


class WithoutAliases(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, _data: Any) -> bool:
        return True


@given(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    )
)
@example({"a": [], "b": {}, "1": [1, 1.0, True, "1", "1.0", "true"]})
def test_bytes_are_pyyamls(data: Any) -> None:
    assert dump_plain(data) == yaml.dump(data, Dumper=WithoutAliases, sort_keys=False)
