"""Files that appear whole or not at all, and hashes that do not change."""

from __future__ import annotations

import stat

import pytest

from evomerge import files
from evomerge.files import canonical_json, replacing, sha256_file, sha256_json, write_text


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    path.parent.mkdir()
    path.write_text("before")
    with pytest.raises(RuntimeError), replacing(path) as temporary_path:
        temporary_path.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]
    with replacing(path) as temporary_path:
        temporary_path.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(path.parent.iterdir()) == [path]


def test_folders_are_made_and_everybody_may_read(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("options", [{}, {"durable": True}, {"durable": False}])
def test_what_is_durable_is_flushed_with_its_folder(options, tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(files, "flush_to_disk", lambda path: flushed.append(path))
    write_text(tmp_path / "file.txt", "text", **options)
    assert len(flushed) == (2 if options.get("durable", True) else 0)
    assert flushed[1:] == [tmp_path] * (len(flushed) // 2)


def test_hashes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == known
    assert sha256_json("abc") == sha256_json("abc") != known
    assert canonical_json({"b": [1, 0.1], "a": "ü"}) == '{"a":"ü","b":[1,0.1]}'
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
