"""Code of task files runs only where somebody allowed it, and nothing of it is imported before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from jinja2.exceptions import SecurityError
from lm_eval.utils import apply_template

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.score.code import AllowedCode, code_of
from evomerge.score.load import _compile_templates_once, load
from evomerge.search.check import check
from fixtures import make_config, make_workspace

LEAVES_A_MARK = """
from pathlib import Path
Path(__file__).with_name("it ran").write_text("")
def text(document): return document["question"]
def mean(values): return sum(values) / len(values)
"""


def make(folder: Path, old: str, new: str, **score) -> Path:
    """A workspace with another task beside its own, changed in one place."""
    make_workspace(folder)
    tasks = folder / "tasks"
    (tasks / "extra.py").write_text(LEAVES_A_MARK)
    text = (tasks / "toy_choose.yaml").read_text().replace("task: toy_choose", "task: coded")
    assert old in text
    (tasks / "coded.yaml").write_text(text.replace(old, new))
    return make_config(
        folder, score={"objectives": [{"task": "coded"}], **score}, workers={"kind": "inline"}
    )


def ran(folder: Path) -> bool:
    return any(folder.rglob("it ran"))


CODED = [
    ("doc_to_text: '{{question}}'", "doc_to_text: !function extra.text", "extra.text"),
    ("aggregation: mean", "aggregation: !function extra.mean", "extra.mean"),
    ("doc_to_text: '{{question}}'", "doc_to_text: !function os.system", "os.system"),
    ("test_split: test", "test_split: test\nclass: !function extra.Task", "extra.Task"),
]


@pytest.mark.parametrize(("old", "new", "what"), CODED)
def test_a_function_is_refused_before_it_is_imported(old, new, what, tmp_path):
    config = make(tmp_path, old, new)
    with pytest.raises(InputError) as info:
        check(load_config(config), tmp_path)
    lines = (tmp_path / "tasks/coded.yaml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "!function" in text)
    message = str(info.value)
    assert message.startswith(f"{tmp_path}/tasks/coded.yaml:{line}: task 'coded' runs the func")
    assert what in message
    assert "score.allow_code: [coded]" in message and f"folder {tmp_path}/tasks" in message
    assert not ran(tmp_path)
    assert not any("extra" in name for name in sys.modules if str(tmp_path) in name)


@pytest.mark.parametrize("allowed", ["coded", "tasks"])
def test_it_runs_where_it_is_allowed(allowed, tmp_path):
    config = make(tmp_path, *CODED[0][:2], allow_code=[allowed])
    evomerge.run(config, tmp_path / "run")
    assert ran(tmp_path)
    written = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["score"]["allow_code"]
    assert written == ["coded" if allowed == "coded" else str(tmp_path / "tasks")]
    # Its own configuration says so too, wherever it is taken up.
    assert evomerge.resume(tmp_path / "run").best is not None


@pytest.mark.parametrize("allowed", ["toy_choose", "elsewhere"])
def test_what_else_is_allowed_does_not_count(allowed, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    config = make(tmp_path, *CODED[0][:2], allow_code=[allowed])
    with pytest.raises(InputError, match="task 'coded' runs the function"):
        check(load_config(config), tmp_path)
    assert not ran(tmp_path)


def test_an_included_file_counts(tmp_path):
    config = make(tmp_path, "doc_to_text: '{{question}}'", "include: base.yaml")
    (tmp_path / "tasks/base.yaml").write_text("doc_to_text: !function extra.text\n")
    with pytest.raises(InputError, match=r"base.yaml:1: task 'coded' runs the function extra.text"):
        check(load_config(config), tmp_path)
    assert not ran(tmp_path)


@pytest.mark.parametrize(
    "text", ["<<: {include: base.yaml}", "metadata: &a {include: base.yaml}\n<<: *a"]
)
def test_a_file_that_is_included_by_a_merge_key_counts(text, tmp_path):
    config = make(tmp_path, "doc_to_text: '{{question}}'", text)
    (tmp_path / "tasks/base.yaml").write_text("doc_to_text: !function extra.text\n")
    with pytest.raises(InputError, match=r"'coded' runs the function extra.text; to let it, set"):
        check(load_config(config), tmp_path)
    assert not ran(tmp_path)


def test_a_script_that_a_group_hides_counts(tmp_path):
    config = make(tmp_path, "metric: acc", "metric: acc")
    task = yaml.safe_load((tmp_path / "tasks/coded.yaml").read_text())
    metrics = [{"metric": str(tmp_path / "tasks/extra"), "aggregation": "mean"}]
    inline = {**task, "task": "inner", "process_results": None}
    del inline["metric_list"]
    group = {"group": "g", "process_results": "x", "metric_list": metrics, "task": [inline]}
    (tmp_path / "tasks/extra").mkdir()
    (tmp_path / "tasks/extra/extra.py").write_text(LEAVES_A_MARK)
    (tmp_path / "tasks/g.yaml").write_text(yaml.safe_dump(group))
    config = make_config(tmp_path, score={"objectives": [{"task": "g"}]})
    with pytest.raises(InputError, match=r"'g' runs a script, its metric '.*/tasks/extra'"):
        check(load_config(config), tmp_path)
    assert not ran(tmp_path)


def test_functions_of_tasks_that_execute_answers_are_not_trusted_elsewhere(tmp_path):
    spec = "!function lm_eval.tasks.cruxeval.utils.pass_at_k"
    config = make(tmp_path, "aggregation: mean", f"aggregation: {spec}")
    with pytest.raises(InputError, match=r"'coded' executes the code that models write"):
        check(load_config(config), tmp_path)


def test_a_blank_entry_allows_nothing(tmp_path):
    config = make(tmp_path, *CODED[0][:2], allow_code=[" "])
    with pytest.raises(InputError, match="allow_code"):
        check(load_config(config), tmp_path)
    assert not ran(tmp_path)


def test_a_folder_that_is_called_like_a_task_is_not_meant(tmp_path):
    (tmp_path / "toy_choose").mkdir()
    config = make(tmp_path, *CODED[0][:2])
    for path in (tmp_path / "tasks").iterdir():
        path.rename(tmp_path / "toy_choose" / path.name)
    score = {"objectives": [{"task": "toy_choose"}, {"task": "coded"}]}
    score |= {"include_path": ["toy_choose"], "allow_code": ["toy_choose"]}
    config = make_config(tmp_path, score=score)
    with pytest.raises(InputError, match="'coded' runs the function"):
        check(load_config(config), tmp_path)


def test_a_group_of_ones_own_counts(tmp_path):
    config = make(tmp_path, *CODED[0][:2])
    group = {"group": "both", "task": ["toy_choose", "coded"]}
    (tmp_path / "tasks/both.yaml").write_text(yaml.safe_dump(group))
    config = make_config(tmp_path, score={"objectives": [{"task": "both", "metric": "acc"}]})
    with pytest.raises(InputError, match="task 'coded' runs the function extra.text"):
        check(load_config(config), tmp_path)
    assert not ran(tmp_path)


def test_a_metric_that_is_a_script_is_refused(tmp_path):
    script = tmp_path / "tasks/acc2/acc2.py"
    config = make(tmp_path, "metric: acc", f"metric: {script.parent}")
    script.parent.mkdir()
    script.write_text(LEAVES_A_MARK)
    with pytest.raises(InputError, match=r"lm-eval has no metric '.*acc2', and would run a script"):
        check(load_config(config), tmp_path)
    assert not ran(tmp_path)


def test_answers_are_not_executed_unasked(tmp_path):
    config = make(tmp_path, "test_split: test", "test_split: test\nunsafe_code: true")
    with pytest.raises(InputError, match=r"'coded' executes the code that models write"):
        check(load_config(config), tmp_path)
    config = make_config(
        tmp_path, score={"objectives": [{"task": "coded"}], "allow_code": ["coded"]}
    )
    assert check(load_config(config), tmp_path)


def test_lm_evals_own_functions_count_as_its_own():
    import lm_eval

    folder = Path(lm_eval.__file__).parent / "tasks"
    for name in ("gsm8k/gsm8k-cot.yaml", "hellaswag/hellaswag.yaml", "humaneval/humaneval.yaml"):
        assert list(code_of(folder / name)) == []
    with pytest.raises(InputError, match=r"'humaneval' executes .*\n?score.allow_code: .humaneval"):
        AllowedCode((), Path()).require_execution("humaneval", folder / "humaneval/humaneval.yaml")


def test_templates_reach_nothing_but_the_document(tmp_path):
    _compile_templates_once()
    assert apply_template("{{a.strip() | upper}}", {"a": " b"}) == "B"
    with pytest.raises(SecurityError):
        apply_template("{{ a.__class__.__mro__[1].__subclasses__() }}", {"a": "b"})
    hostile = "{{ cycler.__init__.__globals__.os.system('touch it') }}"
    config = make(tmp_path, "'{{question}}'", f'"{hostile}"')
    with pytest.raises(InputError, match="task 'coded' .*SecurityError: .* is unsafe"):
        check(load_config(config), tmp_path)


def test_a_name_without_code_is_loaded(tmp_path):
    make_workspace(tmp_path)
    found = load("toy_choose", [tmp_path / "tasks"], AllowedCode((), tmp_path))
    assert list(found.tasks) == ["toy_choose"] and not found.is_group
