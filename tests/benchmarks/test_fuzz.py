"""A short run of the fuzzer: broken files of every kind end in one message."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fuzz import BAD, fuzz
from fuzz_readers import make_readers


def test_broken_files_of_every_kind_end_in_one_message(tmp_path):
    counts, kinds = fuzz(make_readers(tmp_path), tmp_path, 160, seed=1, keep=None)
    assert not kinds
    assert len(counts) >= 13
    for name, found in counts.items():
        assert found.total() == 10, name
        assert not any(found[bad] for bad in BAD)
    assert sum(found["refused"] for found in counts.values()) > 80
