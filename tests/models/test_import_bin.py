"""Pickled weights become safetensors; what is no weight is refused and never runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from evomerge.errors import InputError
from evomerge.models.import_bin import BIN_INDEX, SINGLE_BIN, import_bin
from evomerge.pool import PoolConfig, open_pool
from fixtures import save_model


@pytest.fixture
def pickled(tmp_path):
    """A model as old releases saved it; and its tensors."""
    folder = save_model(tmp_path / "pool/expert", 1)
    save_model(tmp_path / "pool/base", 0)
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / SINGLE_BIN)
    (folder / "model.safetensors").unlink()
    return folder, state


def test_the_message_names_the_command_and_the_command_works(pickled, tmp_path):
    folder, state = pickled
    with pytest.raises(InputError, match=rf"evomerge import-bin {folder} --out FOLDER"):
        open_pool(PoolConfig(base="base", experts=("expert",)), tmp_path / "pool")
    out_dir = tmp_path / "pool/imported"
    command = [sys.executable, "-m", "evomerge", "import-bin", str(folder), "--out", str(out_dir)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    pool = open_pool(PoolConfig(base="base", experts=("imported",)), tmp_path / "pool")
    for name, tensor in state.items():
        assert torch.equal(pool["imported"].tensor(name), tensor)
    assert not (out_dir / SINGLE_BIN).exists()
    assert (out_dir / "tokenizer.json").is_file()


def test_shards(pickled, tmp_path):
    folder, state = pickled
    (folder / SINGLE_BIN).unlink()
    parts = [dict(list(state.items())[:5]), dict(list(state.items())[5:])]
    weight_map = {}
    for number, part in enumerate(parts):
        file_name = f"pytorch_model-{number}.bin"
        torch.save(part, folder / file_name)
        weight_map |= dict.fromkeys(part, file_name)
    (folder / BIN_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    import_bin(folder, tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    weight_map[next(iter(state))] = "../pytorch_model-0.bin"
    (folder / BIN_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InputError, match="which is not beside it"):
        import_bin(folder, tmp_path / "out2")


def test_an_index_that_names_no_files(pickled, tmp_path):
    folder, _ = pickled
    (folder / BIN_INDEX).write_text(json.dumps({"weight_map": {"a": 1, "b": ["x"]}}))
    with pytest.raises(InputError, match="which is not beside it"):
        import_bin(folder, tmp_path / "out")


def test_buffers_of_positions_are_left_out(pickled, tmp_path):
    folder, state = pickled
    torch.save(state | {"model.position_ids": torch.arange(8)}, folder / SINGLE_BIN)
    import_bin(folder, tmp_path / "out")
    assert load_file(tmp_path / "out/model.safetensors").keys() == state.keys()
    torch.save(state | {"model.counts": torch.arange(8)}, folder / SINGLE_BIN)
    with pytest.raises(InputError, match="'model.counts' has type torch.int64, no weight has"):
        import_bin(folder, tmp_path / "out2")


def test_modules_of_the_current_folder_are_not_run(pickled, tmp_path, monkeypatch):
    folder, _ = pickled
    (folder / "torch.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    monkeypatch.chdir(folder)
    import_bin(folder, tmp_path / "out")
    assert not (tmp_path / "marker").exists()


def test_tensors_that_share_memory(pickled, tmp_path):
    """A tied head is stored as a view of the embedding."""
    folder, state = pickled
    state["lm_head.weight"] = state["model.embed_tokens.weight"].T.contiguous().T
    torch.save(state, folder / SINGLE_BIN)
    import_bin(folder, tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])


class _Runs:
    def __reduce__(self):
        return os.mkdir, (os.environ["MARKER"],)


def test_code_in_a_pickle_never_runs(pickled, tmp_path, monkeypatch):
    folder, state = pickled
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    torch.save(state | {"x": _Runs()}, folder / SINGLE_BIN)
    with pytest.raises(InputError, match="nothing|weights_only|WeightsUnpickler|Unsupported"):
        import_bin(folder, tmp_path / "out")
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([1, 2], "holds a list"),
        ({"a": 3}, "'a' is a int, no tensor"),
        (None, "pytorch_model.bin|Error"),
    ],
)
def test_something_else_than_weights(pickled, tmp_path, held, expected):
    folder, _ = pickled
    if held is None:
        (folder / SINGLE_BIN).write_bytes(b"rubbish")
    else:
        torch.save(held, folder / SINGLE_BIN)
    with pytest.raises(InputError, match=expected):
        import_bin(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_import(tmp_path):
    with pytest.raises(InputError, match=f"neither {SINGLE_BIN} nor"):
        import_bin(save_model(tmp_path / "model", 0), tmp_path / "out")
