"""All of the tasks, and their data as files.

The data lie in folders that are called as the data sets are on the Hugging Face hub: where one of
that name is in the current folder, `datasets.load_dataset` takes it. So nothing is downloaded and
nothing is replaced; the tasks' own files and functions are lm-eval's.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lm_eval
import yaml

from own_tasks.choices import CHOICES
from own_tasks.task import Row
from own_tasks.texts import TEXTS

OWN_DIR = Path(lm_eval.__file__).parent / "tasks"

OWN_TASKS = {**CHOICES, **TEXTS}


def write_data(folder: Path) -> None:
    """Write the tasks' data and files of ours into a folder that shall be the current one."""
    configs: dict[str, dict[str, Row]] = {}
    for name, task in OWN_TASKS.items():
        path, config = task.data[0], task.data[1] or "default"
        (folder / path).mkdir(parents=True, exist_ok=True)
        files = []
        for split in task.splits:
            file = f"{config}-{split}.jsonl"
            lines = "".join(json.dumps(row) + "\n" for row in task.rows(split))
            (folder / path / file).write_text(lines)
            files.append({"split": split, "path": file})
        configs.setdefault(path, {})[config] = {"config_name": config, "data_files": files}
        if task.included is not None:
            included, changes = task.included
            include = str(OWN_DIR / task.folder / included)
            text = yaml.safe_dump({"include": include, "task": name, **changes})
            (folder / f"{name}.yaml").write_text(text)
    for path, by_name in configs.items():
        text = yaml.safe_dump({"configs": list(by_name.values())})
        (folder / path / "README.md").write_text(f"---\n{text}---\n")
    (folder / "squad_v2").mkdir()
    shutil.copy(Path(__file__).with_name("squad_v2.py"), folder / "squad_v2")
