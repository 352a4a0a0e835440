"""The journal: durable, checked line by line, and written by one process at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import InputError
from evomerge.journal import JOURNAL_FILE, Event, Journal, read_journal
from evomerge.journal import journal as journal_module
from evomerge.journal.journal import is_in_use, iterate


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run" / JOURNAL_FILE


def write(path: Path, count: int = 4) -> list[Event]:
    """A journal of `count` events, closed."""
    journal = Journal(path)
    for number in range(count):
        journal.append("decided", what=f"thing {number}", value=number / 3)
    journal.close()
    return list(journal.events)


def line_of(**changes) -> bytes:
    """A line with a valid checksum, without its newline."""
    values = {"seq": 3, "time": 1.0, "kind": "told", "data": {}, **changes}
    return Event(**values).to_line().encode()[:-1]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as info:
        read_journal(path)
    assert str(path) in str(info.value)
    return str(info.value)


class TestRoundTrip:
    def test_events(self, path):
        journal = Journal(path)
        assert journal.events == []
        events = [
            journal.append("run_started", name="toy", seed=1),
            journal.append("asked", candidate="a0", ask=0, genome=[0.1, 1 / 3, 1e-300, 1.0]),
            journal.append("failed", reason='line\nbreak "quoted" – ü \u2028 \x00', final=True),
            journal.append("decided", what="nested", value={"a": [1, None, {"b": True}]}),
            journal.append("stopped", reason=""),
        ]
        journal.close()
        read, num_bytes = read_journal(path)
        assert read == events
        assert [event.seq for event in read] == list(range(5))
        assert num_bytes == path.stat().st_size
        assert path.read_bytes().count(b"\n") == 5

    @settings(deadline=None, max_examples=50)
    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        )
    )
    def test_any_data(self, tmp_path_factory, value):
        path = tmp_path_factory.mktemp("journal") / JOURNAL_FILE
        journal = Journal(path)
        event = journal.append("decided", value=value)
        journal.append("stopped", reason="end")
        journal.close()
        assert read_journal(path)[0][0] == event

    def test_not_a_number(self, path):
        journal = Journal(path)
        journal.append("told", standard_errors=[math.nan, math.inf])
        journal.close()
        (event,) = read_journal(path)[0]
        assert math.isnan(event.data["standard_errors"][0])
        assert event.data["standard_errors"][1] == math.inf

    def test_going_on(self, path):
        first = write(path, 3)
        journal = Journal(path)
        assert journal.events == first
        assert journal.next_seq == 3
        later = journal.append("stopped", reason="enough")
        assert later.seq == 3
        journal.close()
        assert read_journal(path)[0] == [*first, later]

    def test_lines_say_what_they_are(self, path):
        write(path, 1)
        line = json.loads(path.read_text())
        assert set(line) == {"seq", "time", "kind", "schema_version", "data", "checksum"}
        assert (line["seq"], line["kind"], line["schema_version"]) == (0, "decided", 1)

    def test_no_journal(self, path):
        path.parent.mkdir()
        path.touch()
        assert read_journal(path) == ([], 0)
        with pytest.raises(FileNotFoundError):
            read_journal(path.with_name("missing"))


class TestCommit:
    def test_lines_are_there_after_it(self, path):
        journal = Journal(path)
        journal.append("stage_started", stage="search")
        journal.append("stage_ended", stage="search")
        assert journal.next_seq == 2
        journal.commit()
        assert read_journal(path)[0] == journal.events
        journal.append("stopped", reason="end")
        journal.commit()
        journal.commit()
        assert read_journal(path)[0] == journal.events
        journal.close()

    def test_a_reader_follows_from_where_it_stopped(self, path):
        journal = Journal(path)
        offset, seen = 0, []
        for round_ in range(4):
            for number in range(round_):
                journal.append("decided", what=f"{round_} {number}", value=None)
            journal.commit()
            for event, num_bytes in iterate(path, offset, len(seen)):
                seen.append(event)
                offset += num_bytes
            assert seen == journal.events
            assert offset == path.stat().st_size
        journal.close()


class TestTornLine:
    def test_every_length_of_the_last_line(self, path, caplog):
        events = write(path, 3)
        whole = path.read_bytes()
        start = whole.rstrip(b"\n").rfind(b"\n") + 1
        for end in range(start, len(whole)):
            path.write_bytes(whole[:end])
            read, num_bytes = read_journal(path)
            assert read == events[:2]
            assert num_bytes == start
        path.write_bytes(whole)
        assert read_journal(path)[0] == events

    @pytest.mark.parametrize("kept", [1, 30, -1])
    def test_the_rest_is_kept_and_appended_to(self, path, caplog, kept):
        events = write(path, 3)
        whole = path.read_bytes()
        start = whole.rstrip(b"\n").rfind(b"\n") + 1
        path.write_bytes(whole[:start] + whole[start:][:kept])
        with caplog.at_level(logging.WARNING):
            journal = Journal(path)
        assert "torn" in caplog.text
        assert journal.events == events[:2]
        later = [journal.append("stopped", reason=text) for text in ("one", "two")]
        assert [event.seq for event in later] == [2, 3]
        journal.close()
        assert read_journal(path)[0] == [*events[:2], *later]

    def test_a_whole_journal_warns_of_nothing(self, path, caplog):
        write(path, 3)
        with caplog.at_level(logging.WARNING):
            Journal(path).close()
        assert caplog.text == ""

    def test_the_only_line(self, path):
        write(path, 1)
        path.write_bytes(path.read_bytes()[:20])
        journal = Journal(path)
        assert journal.events == []
        assert journal.append("stopped", reason="x").seq == 0
        journal.close()
        assert len(read_journal(path)[0]) == 1

    def test_a_last_line_of_zeros(self, path):
        # What some file systems leave behind after a power cut.
        events = write(path, 3)
        path.write_bytes(path.read_bytes() + bytes(100))
        assert read_journal(path)[0] == events
        Journal(path).close()
        assert read_journal(path)[0] == events


class TestDamage:
    @pytest.mark.parametrize("damaged", [0, 1, 2])
    @pytest.mark.parametrize("with_tail", [False, True])
    def test_a_line_that_is_not_the_last(self, path, damaged, with_tail):
        write(path, 4)
        lines = path.read_bytes().split(b"\n")
        lines[damaged] = b"garbage"
        path.write_bytes(b"\n".join(lines) + (b'{"seq":4,' if with_tail else b""))
        before = path.read_bytes()
        assert f"line {damaged + 1} is damaged" in refused(path)
        with pytest.raises(InputError, match=f"line {damaged + 1} "):
            Journal(path)
        assert path.read_bytes() == before  # left as it is, for a person to look at

    def test_a_whole_line_before_a_torn_one(self, path):
        # Only what was being written can be torn.
        write(path, 3)
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(lines[0] + b"\n" + lines[1][:-3] + b"\n" + lines[2][:20])
        assert "line 2 is damaged" in refused(path)

    def test_any_flipped_character(self, path):
        events = write(path, 3)
        whole = path.read_bytes()
        start = whole.index(b"\n") + 1
        end = whole.index(b"\n", start)
        unnoticed = []
        for place in range(start, end):
            for flip in (0x01, 0x10):
                damaged = bytearray(whole)
                damaged[place] ^= flip
                path.write_bytes(damaged)
                try:
                    read, _ = read_journal(path)
                except InputError as error:
                    assert "line 2 " in str(error)
                else:
                    # The last digit of a time may be lost in its rounding to float64.
                    unnoticed.append(read)
        assert all(read == events for read in unnoticed)
        assert len(unnoticed) <= 2

    def test_a_lost_line(self, path):
        write(path, 4)
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([lines[0], *lines[2:]]))
        assert "line 2 is damaged" in refused(path)

    def test_a_repeated_line(self, path):
        write(path, 4)
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([*lines[:2], *lines[1:]]))
        assert "line 3 is damaged" in refused(path)

    def test_a_line_break_lost(self, path):
        write(path, 4)
        path.write_bytes(path.read_bytes().replace(b"\n", b" ", 1))
        assert "line 1 is damaged" in refused(path)

    @pytest.mark.parametrize("text", ["1", "[]", "null", '"x"', "{}", "", '{"checksum":1}'])
    def test_json_of_another_kind(self, path, text):
        write(path, 3)
        lines = path.read_text().split("\n")
        path.write_text("\n".join([lines[0], text, *lines[2:]]))
        assert "line 2 is damaged" in refused(path)

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            (b"[" * 100_000, "it is no JSON"),
            (b"\xff\xfe", "it is no JSON"),
            (b'{"a":1}', "it has not the keys checksum, data"),
            (line_of()[:-1], "it is no JSON"),
            (line_of().replace(b"1.0", b"1.5"), "its checksum does not agree"),
            (line_of().replace(b"told", b"\\ud800"), "it has characters that are none"),
            (line_of(kind="sold"), "its kind is 'sold', which is none"),
            (line_of(seq=7), "it says that it is line 8"),
            (line_of(time=None), "its number, time or data"),
            (line_of(data=[]), "its number, time or data"),
        ],
    )
    def test_the_last_line_is_never_dropped(self, path, line, says):
        """What ends in a newline was written whole."""
        write(path, 3)
        path.write_bytes(path.read_bytes() + line + b"\n")
        before = path.read_bytes()
        message = refused(path)
        assert "line 4 is damaged" in message and says in message
        assert f"evomerge repair {path.parent}" in message
        with pytest.raises(InputError, match="line 4"):
            Journal(path)
        assert path.read_bytes() == before

    def test_a_kind_that_is_none(self, path):
        write(path, 1)
        event = Event(1, 0.0, "told", {})
        object.__setattr__(event, "kind", "sold")
        path.write_text(path.read_text() + event.to_line() + Event(2, 0.0, "told", {}).to_line())
        assert "line 2 is damaged" in refused(path)


def test_a_newer_release_wrote_it(path, monkeypatch):
    write(path, 1)
    monkeypatch.setitem(journal_module._VERSIONS, "stopped", 4)
    journal = Journal(path)
    journal.append("stopped", reason="the future")
    journal.close()
    message = refused(path)
    assert "line 2 has schema_version 4" in message
    assert "install a newer evomerge" in message
    with pytest.raises(InputError, match="newer"):
        Journal(path)


class TestOneWriter:
    def test_the_second_is_refused(self, path):
        journal = Journal(path)
        journal.append("stage_started", stage="search")
        journal.commit()
        before = path.read_bytes()
        with pytest.raises(InputError, match="in use"):
            Journal(path)
        assert path.read_bytes() == before
        # Reading needs no lock, and the first goes on.
        assert read_journal(path)[0] == journal.events
        journal.append("stage_ended", stage="search")
        journal.close()
        assert len(read_journal(path)[0]) == 2

    def test_the_next_may_write_after_the_first(self, path):
        Journal(path).close()
        second = Journal(path)
        second.append("stopped", reason="x")
        second.close()
        assert len(read_journal(path)[0]) == 1

    def test_who_only_looks_is_not_in_the_way(self, path):
        write(path)
        assert not is_in_use(path.parent)
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            look = threading.Timer(0.05, fcntl.flock, (file, fcntl.LOCK_UN))
            look.start()
            journal = Journal(path)
            look.join()
        assert is_in_use(path.parent)
        journal.close()
        assert not is_in_use(path.parent)

    def test_a_damaged_one_is_let_go(self, path):
        events = write(path)
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"thing 0", b"thing 9"))
        with pytest.raises(InputError, match="line 1 is damaged") as refusal:
            Journal(path)
        path.write_bytes(whole)
        journal = Journal(path)
        # The traceback still refers to the first: nobody waits for the garbage collector.
        assert refusal.value.__traceback__ is not None
        assert journal.events == events
        journal.close()


@pytest.mark.parametrize("written", [True, False])
def test_a_commit_that_a_signal_ends_is_made_again(path, monkeypatch, written):
    journal = Journal(path)
    journal.append("run_started", name="toy")
    journal.commit()

    def interrupted(_descriptor):
        monkeypatch.undo()
        if not written:
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - 5)
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    journal.append("decided", what="a", value=1)
    with pytest.raises(KeyboardInterrupt):
        journal.commit()
    journal.append("stopped", reason="signal")
    journal.close()
    events, num_bytes = read_journal(path)
    assert [event.kind for event in events] == ["run_started", "decided", "stopped"]
    assert num_bytes == path.stat().st_size
