"""What is kept of a pool within a budget."""

from __future__ import annotations

import torch

from evomerge.merge.kept import Kept

EIGHT_BYTES = 8


class Maker:
    """Makes statistics of eight bytes and counts how often it did."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def use(self, kept: Kept, keys: str) -> None:
        """Those in capitals are cheap."""
        for key in keys:
            kept.get(key, lambda key=key: self._make(key), is_cheap=key.isupper())

    def _make(self, key: str):
        self.made.append(key)
        return (torch.zeros(2),)


def builds(kept: Kept, *all_keys: str) -> list[str]:
    """What each build makes anew."""
    made = []
    for keys in all_keys:
        maker = Maker()
        kept.begin_build()
        maker.use(kept, keys)
        made.append("".join(maker.made))
    return made


def test_what_fits_is_made_once():
    assert builds(Kept(3 * EIGHT_BYTES), "abc", "abc", "cab") == ["abc", "", ""]


def test_beyond_the_budget_the_first_stay():
    kept = Kept(2 * EIGHT_BYTES + 1)
    assert builds(kept, "abcd", "abcd", "abcd") == ["abcd", "cd", "cd"]
    assert kept.size_bytes == 2 * EIGHT_BYTES


def test_what_two_builds_did_not_use_makes_room():
    kept = Kept(2 * EIGHT_BYTES)
    assert builds(kept, "ab", "cd", "cd", "cd") == ["ab", "cd", "cd", ""]
    assert builds(kept, "ad", "ab") == ["a", "ab"]


def test_the_cheap_give_way():
    kept = Kept(2 * EIGHT_BYTES)
    assert builds(kept, "ABa", "ABab", "ABab") == ["ABa", "Ab", "AB"]
    assert kept.size_bytes == 2 * EIGHT_BYTES


def test_the_cheap_take_only_what_is_left():
    kept = Kept(2 * EIGHT_BYTES)
    assert builds(kept, "aA", "aABb", "abAB", "abAB") == ["aA", "Bb", "AB", "AB"]


def test_what_never_fits_drops_nothing():
    kept = Kept(EIGHT_BYTES)
    assert builds(kept, "A") == ["A"]
    kept.get("large", lambda: (torch.zeros(4),))
    assert builds(kept, "A") == [""]


def test_without_a_budget_nothing_is_kept():
    kept = Kept(0)
    assert builds(kept, "a", "a") == ["a", "a"]
    assert kept.get("b", lambda: (torch.zeros(2),))[1] is False
    assert kept.get("c", lambda: ()) == ((), True)


def test_the_first_build_without_room_says_how_much_would_do(caplog):
    kept = Kept(2 * EIGHT_BYTES)
    assert builds(kept, "ab") == ["ab"]
    kept.end_build()
    assert kept.shortage is None
    for keys in ("abcd", "abcde"):
        builds(kept, keys)
        kept.end_build()
    assert [record.message for record in caplog.records] == [kept.shortage]
    assert "need 0.00 MiB and have 0.00 MiB" in kept.shortage
    large = Kept(3 << 20)
    large.begin_build()
    for key in range(3):
        large.get(key, lambda: (torch.zeros(1 << 19),))
    large.get("cheap", lambda: (torch.zeros(1 << 19),), is_cheap=True)
    large.end_build()
    assert "need 6.00 MiB and have 3.00 MiB" in large.shortage
