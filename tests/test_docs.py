"""README and documentation tell the truth: links, configurations, options, and the site."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from docs_pages import PAGES, ROOT, blocks
from evomerge.config import Config
from evomerge.recipe import Recipe

LANGUAGES = {"sh", "console", "yaml", "text", "python", "json", "toml"}

WHOLE = {
    "name": "page",
    "pool": {"base": "models/base", "experts": ["models/math", "models/code"]},
    "score": {"include_path": ["tasks"], "objectives": [{"task": "quiz"}]},
    "space": {"kind": "parameter", "method": {"kind": "task_arithmetic"}},
    "search": {"budget": {"candidates": 10}},
}
"""What a page's part of a configuration is a part of."""

RECIPE = {
    "members": {"base": {"sha256": "0", "source": "a"}, "math": {"sha256": "1", "source": "b"}},
    "dtype": "bfloat16",
    "parts": [{"method": {"kind": "linear"}, "models": ["math"]}],
}


def with_part(whole, part):
    """A configuration with what a page says in its place."""
    if not isinstance(whole, dict) or not isinstance(part, dict) or "kind" in part:
        return part
    return whole | {key: with_part(whole.get(key), value) for key, value in part.items()}


def ids(pages):
    return [page.stem for page in pages]


def test_the_site_is_built_without_a_word(tmp_path):
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-d", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for page in (tmp_path / "site").glob("*.html"):
        # A page that is opened loads nothing from elsewhere.
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', text), page


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_what_a_page_shows_is_in_a_language_that_is_tried(page):
    assert {shown.language for shown in blocks(page)} <= LANGUAGES


def test_every_file_the_readme_links_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (ROOT / target.partition("#")[0]).exists(), target


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 1200
    assert text.count("badge") <= 2


def test_make_has_its_targets():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in ("demo", "test", "test-long", "check", "docs", "demo-pool"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0 and f"make {target}" in text


# The merges of recipes.md are built in mergekit/test_gallery.py.
PARTS = [shown for page in PAGES if page.stem != "recipes" for shown in blocks(page, "yaml")]
CONFIGURATIONS = [shown for shown in PARTS if shown.title is None]
RECIPES = [shown for shown in PARTS if shown.title == "recipe.yaml"]


@pytest.mark.parametrize("shown", CONFIGURATIONS, ids=lambda shown: shown.page.stem)
def test_a_part_of_a_configuration_is_read(shown):
    part = yaml.safe_load(shown.text)
    if part is None:  # a comment alone
        return
    Config.model_validate(with_part(WHOLE, part))


@pytest.mark.parametrize("shown", RECIPES, ids=lambda shown: shown.page.stem)
def test_a_part_of_a_recipe_is_read(shown):
    Recipe.model_validate(with_part(RECIPE, yaml.safe_load(shown.text)))


def test_files_that_pages_show_are_tried_elsewhere():
    # merge.yaml is written before its page's commands are run; notify.yaml calls a webhook in
    # flows/test_whole_way.py.
    titles = {None, "recipe.yaml", "prefect.yaml", "notify.yaml"}
    mergekit = {"merge.yaml", "chain.yaml", "evolve.yaml"}
    assert {shown.title for shown in PARTS} == titles | mergekit


DEPTHS = {"prefect": 3, "ray": 2, "mlflow": 2}
"""Words of a command of another tool in front of its options."""


@cache
def deployments():
    """Parameters of each deployment."""
    from flows import promote, score, search, sweep

    flows = {"search": search.search, "promote": promote.promote, "score": score.score}
    flows["sweep"] = sweep.sweep
    defined = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    found = {}
    for deployment in defined:
        name = deployment["entrypoint"].rpartition(":")[2]
        found[f"{name}/{deployment['name']}"] = set(flows[name].parameters.properties)
    return found


def commands(page):
    for shown in blocks(page, "console"):
        for line in shown.text.splitlines():
            yield from (shlex.split(part) for part in line.split(" && "))


@cache
def options(*command):
    """What a command of another tool takes."""
    tool = Path(sys.executable).with_name(command[0])
    words = [tool, *command[1:], "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z][a-z-]+", done.stdout))


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_servers_and_deployments_are_called_as_they_can_be(page):
    for words in commands(page):
        given = [word.partition("=")[0] for word in words if word.startswith("--")]
        if words[:3] == ["prefect", "deployment", "run"]:
            parameters = deployments()[words[3]]
            named = [words[n + 1].partition("=")[0] for n, w in enumerate(words) if w == "--param"]
            assert set(named) <= parameters, words
            given = [option for option in given if option not in ("--param", "--watch")]
        if words[0] in DEPTHS and given:
            assert set(given) <= options(*words[: DEPTHS[words[0]]]), words
