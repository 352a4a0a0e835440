"""What a task file names lies in the folders that the configuration names, whatever leads there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from evomerge.begin.sources import tasks_of
from evomerge.errors import InputError
from evomerge.score.code import AllowedCode
from evomerge.score.load import load
from evomerge.score.places import Places
from fixtures import make_tasks


@pytest.fixture
def folder(tmp_path) -> Path:
    make_tasks(tmp_path / "tasks")
    (tmp_path / "else").mkdir()
    (tmp_path / "tasks/choose.jsonl").rename(tmp_path / "else/choose.jsonl")
    return tmp_path


def name_data(folder: Path, files: object, **fields: object) -> None:
    path = folder / "tasks/toy_choose.yaml"
    task = yaml.safe_load(path.read_text()) | fields
    task["dataset_kwargs"] = {"data_files": {"test": files}}
    path.write_text(yaml.safe_dump(task))


def load_with(folder: Path, *of_data: Path, name: str = "toy_choose") -> int:
    places = Places([folder, *of_data])
    tasks = load(name, [folder], AllowedCode([], folder), places).tasks
    return sum(len(task.eval_docs) for task in tasks.values())


@pytest.mark.parametrize(
    "files",
    [
        "../else/choose.jsonl",
        "{folder}/else/choose.jsonl",
        ["../else/choose.jsonl"],
        "../else/*.jsonl",
        "{folder}/else/*.jsonl",
        "../*/choose.jsonl",
        "file://{folder}/else/choose.jsonl",
        "else/choose.jsonl",
        "file:{folder}/else/choose.jsonl",
    ],
)
def test_data_elsewhere_are_refused_until_their_folder_is_named(files, folder, monkeypatch):
    # Where datasets looks for what is not beside the task.
    monkeypatch.chdir(folder)
    whole = [each.format(folder=folder) for each in ([files] if isinstance(files, str) else files)]
    name_data(folder, whole)
    outside = rf"lies outside .*\n.* add {re.escape(str(folder / 'else'))} to score.data_path"
    with pytest.raises(InputError, match=outside):
        load_with(folder / "tasks")
    assert load_with(folder / "tasks", folder / "else") == 40


def test_what_is_kept_of_a_file_elsewhere_is_refused_as_well(folder):
    for address in ("simplecache::file://{}", "zip://x.jsonl::{}", "simplecache::local://{}"):
        name_data(folder, address.format(folder / "else/choose.jsonl"))
        with pytest.raises(InputError, match="lies outside"):
            load_with(folder / "tasks")


def test_a_link_leads_nowhere_else(folder):
    (folder / "tasks/choose.jsonl").symlink_to(folder / "else/choose.jsonl")
    with pytest.raises(InputError, match="lies outside"):
        load_with(folder / "tasks")
    assert load_with(folder / "tasks", folder / "else") == 40


def test_a_folder_of_a_dataset_lies_there_too(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in (str(folder / "else"), "./else", "else", "../" + folder.name + "/else"):
        name_data(folder, "x.jsonl", dataset_path=name)
        with pytest.raises(InputError, match=r"dataset_path: .*else lies outside"):
            load_with(folder / "tasks")


def test_a_folder_of_data_leads_nowhere_else(folder):
    (folder / "tasks/a").mkdir()
    path = folder / "tasks/toy_choose.yaml"
    task = yaml.safe_load(path.read_text())
    data_dir = str(folder / "tasks/a")
    task["dataset_kwargs"] = {"data_dir": data_dir, "data_files": "../../else/choose.jsonl"}
    path.write_text(yaml.safe_dump(task))
    with pytest.raises(InputError, match="lies outside"):
        load_with(folder / "tasks")


@pytest.mark.parametrize("name", ["toy_write", "arc_easy", "inline"])
def test_a_group_names_no_data_elsewhere(name, folder):
    """Of a task beside it, of lm-eval's own, and of one that stands in the group alone."""
    whole = yaml.safe_load((folder / "tasks/toy_choose.yaml").read_text())
    data = {"data_files": {"test": str(folder / "else/choose.jsonl")}}
    entry = {**whole, "task": name, "dataset_kwargs": data}
    group = {"group": "some", "task": [entry]}
    (folder / "tasks/some.yaml").write_text(yaml.safe_dump(group))
    with pytest.raises(InputError, match=r"some.yaml: data_files: .*choose.jsonl lies outside"):
        load_with(folder / "tasks", name="some")
    assert load_with(folder / "tasks", folder / "else", name="some") == 40


def test_tasks_of_a_run_that_has_begun_read_what_they_read(folder):
    name_data(folder, "../else/choose.jsonl")
    allowed = AllowedCode([], folder)
    assert load("toy_choose", [folder / "tasks"], allowed, Places(None)).tasks


def test_an_included_file_lies_there_too(folder):
    (folder / "else/common.yaml").write_text("num_fewshot: 0\n")
    path = folder / "tasks/toy_choose.yaml"
    path.write_text(f"include: ../else/common.yaml\n{path.read_text()}")
    with pytest.raises(InputError, match=r"include: .*common.yaml lies outside"):
        load_with(folder / "tasks")
    name_data(folder, "../else/choose.jsonl")
    assert load_with(folder / "tasks", folder / "else") == 40


def test_a_new_configuration_names_the_folder_of_data(folder):
    name_data(folder, "../else/choose.jsonl")
    for files in ("../else/choose.jsonl", "../else/*.jsonl"):
        name_data(folder, files)
        named = tasks_of([str(folder / "tasks/toy_choose.yaml")], folder)
        assert named == (["toy_choose"], [str(folder / "tasks")], [str(folder / "else")])
