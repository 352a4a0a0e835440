"""Chat templates, hostile ones too, are filled in within limits."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date

import psutil
import pytest
from jinja2.exceptions import TemplateError

from evomerge.errors import InputError
from evomerge.score.templates import TemplateProcess, fill_in
from fixtures import make_tokenizer

CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "é\N{GRINNING FACE} \"a\" 'b' \\ \n <b>"},
    {"role": "assistant", "content": "so it is"},
]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message['content'] | trim }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "special tokens": "{{ eos_token }}{{ messages | map(attribute='content') | join(pad_token) }}",
    "variables": "{{ thinks or 'no' }}{{ messages[-1].content }}{{ add_generation_prompt }}",
    "namespaces": (
        "{% set ns = namespace(n=0) %}{%- for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{% if loop.last %}{{ m.content }}{% else %}{% continue %}{% endif %}{% endfor %}{{ ns.n }}"
    ),
    "the day": "{{ strftime_now('%d') }}{{ messages[-1].content }}",
    "generation": "{% generation %}{{ messages[-1].content }}{% endgeneration %}",
}


@pytest.fixture(scope="module")
def process():
    made = TemplateProcess(limit_s=2.0)
    yield made
    made.close()


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_are_the_tokenizers_own(name, goes_on):
    tokenizer, template = make_tokenizer(), TEMPLATES[name]
    expected = tokenizer.apply_chat_template(
        CHAT,
        chat_template=template,
        tokenize=False,
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
        thinks="yes",
    )
    text = fill_in(
        tokenizer,
        template,
        CHAT,
        owner="base",
        add_generation_prompt=not goes_on,
        arguments={"thinks": "yes"},
    )
    assert text == expected


def fill(process: TemplateProcess, template: str, day: date | None = None) -> str:
    return process.fill(CHAT, "base", day, {"chat_template": template})


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TREE = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (LOOP, "takes longer than 2 s for one prompt"),
        (TREE, "takes longer than 2 s"),
        ("{{ 'x' * 10 ** 10 }}", "too much memory"),
        ("{{ '%10000000000d' % 1 }}", "too much memory"),
        ("{{ 'x' | center(10 ** 10) }}", "too much memory"),
        (
            "{% set ns = namespace(s='x') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}"
            "{% endfor %}",
            "too much memory",
        ),
    ],
)
def test_hostile_templates_end(template, says, process):
    with pytest.raises(InputError, match=f"the chat template of base .*({says})"):
        fill(process, template)
    assert fill(process, CHATML).startswith("<|im_start|>system")


def test_a_text_that_no_model_reads_is_refused(process):
    with pytest.raises(RuntimeError, match="ValueError: a text of more than 16,777,216 letters"):
        fill(process, "{{ 'x' * 16777217 }}")
    assert len(fill(process, "{{ 'x' * 1048576 }}")) == 1048576


def test_an_answer_that_nobody_waits_for_is_nobody_elses(process, monkeypatch):
    assert fill(process, "{{ 'first' }}") == "first"
    line = TemplateProcess._line

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(TemplateProcess, "_line", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(process, "{{ 'second' }}")
    monkeypatch.setattr(TemplateProcess, "_line", line)
    assert fill(process, "{{ 'third' }}") == "third"


def test_ctrl_c_is_not_for_the_process(process):
    assert fill(process, CHATML)
    assert os.getpgid(process._process.pid) != os.getpgid(0)


def test_a_template_without_end_ends_with_its_parent(tmp_path):
    code = (
        "import os, sys, threading, time\n"
        "from evomerge.score.templates import TemplateProcess\n"
        "made = TemplateProcess()\n"
        "made.fill([], 'base', None, {'chat_template': 'x'})\n"
        "print(made._process.pid, flush=True)\n"
        f"loop = {LOOP!r}\n"
        "fill = lambda: made.fill([], 'base', None, {'chat_template': loop})\n"
        "threading.Thread(target=fill, daemon=True).start()\n"
        "time.sleep(0.5)\n"
        "os._exit(0)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    child = psutil.Process(int(ran.stdout)) if psutil.pid_exists(int(ran.stdout)) else None
    if child is not None:
        child.wait(timeout=30)


def test_what_a_template_raises_comes_back(process):
    with pytest.raises(TemplateError, match="no systems"):
        fill(process, "{{ raise_exception('no systems') }}")
    with pytest.raises(TemplateError, match="unsafe|access to attribute"):
        fill(process, "{{ messages.__class__.__mro__ }}")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        fill(process, "{{ 1 / 0 }}")


def test_the_day_is_of_one_text_alone(process):
    template = "{{ strftime_now('%Y-%m-%d') }}"
    assert fill(process, template, date(2020, 2, 3)) == "2020-02-03"
    assert fill(process, template) >= "2026"


def test_a_process_that_is_gone_is_started_again(process):
    assert fill(process, CHATML)
    assert process._process is not None
    process._process.kill()
    process._process.wait()
    with pytest.raises(InputError, match="the process that filled in .* has ended"):
        fill(process, CHATML)
    assert fill(process, CHATML)
