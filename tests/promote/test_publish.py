"""What goes to the hub: nothing of this machine, nothing that is old, nothing that is not asked."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from evomerge.errors import EvomergeError, InputError
from evomerge.models import export_checkpoint
from evomerge.pool import Pool
from evomerge.promote.forms import write_low_rank
from evomerge.promote.publish import prepare, upload
from evomerge.recipe import Hop, LayerPath, Recipe, read_recipe
from evomerge.space import recipes
from families import family_config, make_random_pool

CARD = """---
license: mit
base_model:
- {quoted}
- org/name
tags:
- merge
---
# A merge

| base | {base} |

```yaml
{recipe}
```

Written by `evomerge export {base}/run --candidate x --out DIR`.
"""


@pytest.fixture(scope="module")
def merged(tmp_path_factory) -> tuple[Pool, Path]:
    """A pool, and its average as a checkpoint."""
    return export(tmp_path_factory.mktemp("pool"))


def export(folder: Path) -> tuple[Pool, Path]:
    pool = make_random_pool(folder, family_config("Llama"))
    recipe = recipes.uniform(pool)
    base = pool.base.source
    card = CARD.format(base=base, quoted=json.dumps(base), recipe=recipe.to_yaml().rstrip())
    export_checkpoint(pool, recipe, folder / "merge", card)
    return pool, folder / "merge"


def texts_of(folder: Path) -> dict[str, str]:
    """All that an upload would have of texts."""
    planned = prepare(folder, "org/merge")
    return {
        name: planned.texts.get(name) or (folder / name).read_text(encoding="utf-8")
        for name in planned.files
        if not name.endswith(".safetensors")
    }


def test_what_is_uploaded_names_no_folder_of_this_machine(merged, tmp_path):
    pool, model_dir = merged
    write_low_rank(model_dir, tmp_path / "lora", 2, lambda _done, _of: None)
    for folder in (model_dir, tmp_path / "lora"):
        planned = prepare(folder, "org/merge")
        assert set(planned.files) == {path.name for path in folder.iterdir()}
        texts = texts_of(folder)
        for name, text in texts.items():
            assert str(Path(pool.base.source).parent) not in text, name
            assert planned.files[name] == len(text.encode())
        head = yaml.safe_load(texts["README.md"].split("---\n")[1])
        assert head["base_model"] == ["org/name"] and "Written by" not in texts["README.md"]
        assert planned.lines()[0].startswith("would upload to org/merge: (")


@pytest.mark.parametrize("name", ["pö l", "it's", 'a"b', "on: # 1"])
def test_a_folder_of_any_name_is_taken_out(name, tmp_path):
    pool, model_dir = export(tmp_path / name)
    texts = texts_of(model_dir)
    for text in texts.values():
        assert name not in text and "pool" not in text and str(tmp_path) not in text
    recipe = read_recipe(model_dir / "recipe.yaml")
    published = Recipe.model_validate(yaml.safe_load(texts["recipe.yaml"]))
    assert published.sha256 == recipe.sha256
    assert [member.source for member in published.members.values()] == list(pool.members)
    assert published.to_yaml().rstrip() in texts["README.md"]
    assert "To build the recipe, write in the place of each such `source`" in texts["README.md"]


def test_a_folder_in_an_unknown_place_is_refused(merged, tmp_path):
    pool, model_dir = merged
    shutil.copytree(model_dir, tmp_path / "model")
    with (tmp_path / "model/chat_template.jinja").open("w") as file:
        file.write(f"{{# {pool.base.source} #}}")
    with pytest.raises(InputError, match=r"chat_template.jinja names .*a folder of this machine"):
        prepare(tmp_path / "model", "org/merge")


def test_what_is_no_part_of_a_model_stays_here(merged, tmp_path):
    _, model_dir = merged
    shutil.copytree(model_dir, tmp_path / "model")
    config = json.loads((model_dir / "config.json").read_text()) | {"_name_or_path": "/home/me/x"}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    for name in ("secrets.json", "notes.txt", "optimizer.pt"):
        (tmp_path / "model" / name).write_text("{}")
    planned = prepare(tmp_path / "model", "org/merge")
    assert planned.left_out == ("notes.txt", "optimizer.pt", "secrets.json")
    assert "  notes.txt: not uploaded, it is no part of a model" in planned.lines()
    assert "/home/me" not in planned.texts["config.json"]
    assert set(planned.files) == {path.name for path in model_dir.iterdir()}


def test_a_path_is_uploaded_with_its_module(merged, tmp_path):
    pool, _ = merged
    hops = tuple(Hop(model="expert0", layer=layer) for layer in (0, 1, 1, 2))
    recipe = Recipe(members=pool.members, dtype=pool.dtype, path=LayerPath(outer="base", hops=hops))
    export_checkpoint(pool, recipe, tmp_path / "path", "")
    planned = prepare(tmp_path / "path", "org/merge")
    assert "modeling_path.py" in planned.files and planned.left_out == ()


def test_a_card_without_any_base_of_the_hub_is_whole(tmp_path, merged):
    _, model_dir = merged
    shutil.copytree(model_dir, tmp_path / "model")
    card = (model_dir / "README.md").read_text().replace("- org/name\n", "")
    (tmp_path / "model/README.md").write_text(card)
    text = prepare(tmp_path / "model", "org/merge").texts["README.md"]
    assert "base_model" not in text and text.startswith("---\nlicense: mit\ntags:\n- merge\n---\n")


@pytest.mark.parametrize("name", ["merge", "org/a b", "a/b/c", "-/x"])
def test_what_is_no_repository_is_refused(name, merged):
    with pytest.raises(InputError, match="--push-to-hub"):
        prepare(merged[1], name)


@dataclass
class Hub:
    """A hub with one repository, which speaks what huggingface_hub asks for.

    Attributes:
        files: By name; none while the repository is not there.
        is_private: Whether others cannot see it.
        address: Where it is.
        visibilities: What each that made it asked for.
    """

    files: dict[str, bytes] | None = None
    is_private: bool = True
    address: str = ""
    visibilities: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, object]]:
        """Status and JSON of an answer."""
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user"}
        if path == "/api/repos/create":
            self.is_private = json.loads(body)["visibility"] == "private"
            self.visibilities.append(json.loads(body)["visibility"])
            self.files = self.files or {}
            return 200, {"url": f"{self.address}/me/toy", "name": "me/toy"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if method == "GET" and path == "/api/models/me/toy":
            if self.files is None:
                return 404, {"error": "none"}
            names = [{"rfilename": name} for name in self.files]
            return 200, {"id": "me/toy", "private": self.is_private, "siblings": names}
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": each["path"], **modes} for each in asked]}
        if "/commit/" in path:
            assert self.files is not None
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del self.files[value["path"]]
            url = f"{self.address}/me/toy/commit/0"
            return 200, {"commitUrl": url, "commitOid": "0", "hookOutput": ""}
        return 404, {"error": path}


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """A hub on this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            status, told = hub.answer(self.command, path, body)
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = reach(monkeypatch, server.server_address[1])
    yield hub
    server.shutdown()
    server.server_close()


def reach(monkeypatch, port: int) -> str:
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    return address


def test_an_upload_is_the_folder_and_nothing_older(merged, hub):
    _, model_dir = merged
    planned = prepare(model_dir, "me/toy")
    done = upload(model_dir, planned, is_private=True)
    assert done.lines()[0].startswith(f"{hub.address}/me/toy: uploaded (") and hub.visibilities == [
        "private"
    ]
    assert hub.files is not None
    assert {name: len(content) for name, content in hub.files.items()} == planned.files
    weights = (model_dir / "model.safetensors").read_bytes()
    assert hub.files["model.safetensors"] == weights
    assert hub.files["README.md"].decode() == planned.texts["README.md"]

    old = ("model-00001-of-00002.safetensors", "model.safetensors.index.json")
    kept = ("LICENSE", ".gitattributes", "onnx/model.safetensors")
    hub.files |= dict.fromkeys([*old, *kept], b"old")
    done = upload(model_dir, planned, is_private=True)
    assert done.replaced == old and f"  {old[0]}: removed, of an earlier upload" in done.lines()
    assert set(hub.files) == {*planned.files, *kept}


def test_a_model_of_somebody_else_is_not_replaced(merged, hub):
    hub.files = {"config.json": b"{}", "model.safetensors": b"theirs"}
    with pytest.raises(InputError, match="has a model that evomerge did not upload"):
        upload(merged[1], prepare(merged[1], "me/toy"), is_private=True)
    assert hub.files["model.safetensors"] == b"theirs"


def test_a_place_under_an_unknown_key_is_refused(merged, tmp_path):
    _, model_dir = merged
    shutil.copytree(model_dir, tmp_path / "model")
    config = json.loads((model_dir / "config.json").read_text())
    more = {"tokenizer_path": "/mnt/x/y", "special": {"dataset": "/data/secret.json"}}
    (tmp_path / "model/config.json").write_text(json.dumps(config | more))
    with pytest.raises(InputError, match=r"'/data/secret.json' under 'dataset'"):
        prepare(tmp_path / "model", "org/merge")


@pytest.mark.parametrize(("was", "words"), [(False, "is public; add --public"), (True, "private")])
def test_nobody_sees_more_than_was_asked_for(was, words, merged, hub):
    hub.files, hub.is_private = {}, was
    with pytest.raises(InputError, match=words):
        upload(merged[1], prepare(merged[1], "me/toy"), is_private=not was)
    assert hub.files == {}


def test_a_hub_that_cannot_be_reached_is_one_message(merged, monkeypatch):
    _, model_dir = merged
    reach(monkeypatch, 9)
    with pytest.raises(EvomergeError, match="--push-to-hub: me/toy cannot be written: "):
        upload(model_dir, prepare(model_dir, "me/toy"), is_private=True)
