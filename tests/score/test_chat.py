"""Prompts as chats: lm-eval's own texts and answers, and one message for what a template is not."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import yaml
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from pydantic import ValidationError
from tokenizers.normalizers import Strip
from tokenizers.processors import TemplateProcessing

from evomerge.errors import InputError
from evomerge.score import LmEvalScorer, ScoreConfig, TaskSet
from evomerge.score.chat import chat_of
from evomerge.score.encoding import Encoder
from evomerge.search.score_section import check_thinking, with_defaults
from fixtures import make_tokenizer
from lm_eval_tasks import (
    BATCH_TOKENS,
    CHOOSE,
    FIRST,
    MEAN,
    WRITE,
    check_equal,
    make_backend,
    make_score_config,
    score,
)

TEMPLATE = (
    "{% if thinks is defined %}g{% endif %}"
    "{% for m in messages %}"
    "{{ {'system': 'e', 'user': 'g', 'assistant': 'c'}[m['role']] }}>{{ m['content'] }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}{% if enable_thinking %}h{% endif %}c>{% endif %}"
)
ENDS = {"until": ["hh"], "max_gen_toks": 8, "do_sample": False}
TASKS = {
    "toy_chat": {
        **WRITE,
        "description": "bee",
        "output_type": "generate_until",
        "generation_kwargs": ENDS,
        "filter_list": [{"name": "first", "filter": [FIRST]}],
        "metric_list": [{"metric": "exact_match", **MEAN}],
    },
    "toy_begun": {
        **CHOOSE,
        "gen_prefix": "ab",
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}],
    },
}


@pytest.fixture(params=["own", "hflm"])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tasks_dir) -> Path:
    for name, task in TASKS.items():
        (tasks_dir / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **task}))
    return tasks_dir


@pytest.fixture
def tokenizer():
    made = make_tokenizer()
    made.chat_template = TEMPLATE
    return made


def make_chat_scorer(config: ScoreConfig, model, tokenizer) -> LmEvalScorer:
    tasks = TaskSet(config, Path())
    backend = make_backend(model, tokenizer)
    return LmEvalScorer(config, tasks, tasks.draw_splits(), backend, tokenizer, BATCH_TOKENS)


def by_lm_eval(config: ScoreConfig, model, tokenizer):
    tasks = TaskSet(config, Path())
    splits = tasks.draw_splits()
    tasks.reserve_examples(splits)
    for task in tasks.tasks.values():
        task.set_fewshot_seed(config.fewshot_seed)
    lm = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=1,
        softmax_dtype="float32",
        chat_template_args=config.chat_template_args,
        enable_thinking=None if "toy_begun" in tasks.tasks else config.enable_thinking,
        think_end_token=config.think_end_token,
    )
    return evaluate(
        lm,
        {"tasks": tasks.tasks, "groups": {}, "group_map": {}},
        samples={task: list(by_split["search"]) for task, by_split in splits.items()},
        bootstrap_iters=2,
        system_instruction=config.system_instruction,
        apply_chat_template=bool(config.apply_chat_template),
        fewshot_as_multiturn=bool(config.fewshot_as_multiturn),
    )


CHATS = {
    "a template": {"apply_chat_template": True},
    "examples as turns": {
        "apply_chat_template": True,
        "fewshot_as_multiturn": True,
        "num_fewshot": 2,
    },
    "examples in one message": {
        "apply_chat_template": True,
        "fewshot_as_multiturn": False,
        "num_fewshot": 2,
    },
    "an instruction": {"apply_chat_template": True, "system_instruction": "bad face"},
    "an instruction without a template": {"system_instruction": "bad face", "num_fewshot": 1},
    "variables": {"apply_chat_template": True, "chat_template_args": {"thinks": 1}},
}


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("task", TASKS)
def test_chats_are_lm_evals(name, task, folder, model, tokenizer, engine):
    config = make_score_config(
        folder, {"task": task}, engine=engine, fewshot_by="block", **CHATS[name]
    )
    scorer = make_chat_scorer(config, model, tokenizer)
    check_equal(scorer, score(scorer), by_lm_eval(config, model, tokenizer))


@pytest.mark.parametrize("end", ["a", "cab", 4])
def test_what_is_thought_does_not_count(end, folder, model, tokenizer, engine):
    config = make_score_config(
        folder,
        {"task": "toy_chat"},
        engine=engine,
        apply_chat_template=True,
        enable_thinking=True,
        think_end_token=end,
    )
    scorer = make_chat_scorer(config, model, tokenizer)
    rows = score(scorer)
    check_equal(scorer, rows, by_lm_eval(config, model, tokenizer))
    plain = make_score_config(folder, {"task": "toy_chat"}, engine=engine, apply_chat_template=True)
    others = score(make_chat_scorer(plain, model, tokenizer))
    assert end == "cab" or [row.text for row in rows] != [row.text for row in others]


def test_how_an_answer_begins_is_part_of_the_prompt(folder, model, tokenizer):
    config = make_score_config(
        folder, {"task": "toy_chat"}, apply_chat_template=True, gen_prefix="cd", num_fewshot=1
    )
    scorer = make_chat_scorer(config, model, tokenizer)
    rows = score(scorer)
    (requests,) = scorer._requests.values()
    for asked in requests.documents:
        (instance,) = asked.instances
        assert instance.args[0].endswith("c>cd") and instance.args[0].count("cd") >= 2
    check_equal(scorer, rows, by_lm_eval(config, model, tokenizer))


@pytest.mark.parametrize("begin", ["", "<s>", " <s>"])
def test_a_text_begins_once(begin):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    number = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", number)]
    )
    if begin.startswith(" "):
        # Such as a template gives that puts a space before it, for a tokenizer that drops it.
        tokenizer.backend_tokenizer.normalizer = Strip()
    encoder = Encoder(tokenizer, 64)
    text = f"{begin}u:abc"
    context, targets = encoder.pair(text, "de")
    for tokens in (encoder.tokens(text), encoder.prompt_tokens(text), context + targets):
        assert tokens.count(number) == 1 and tokens[0] == number


def test_a_template_is_recorded_by_its_text(tokenizer, folder):
    config = make_score_config(folder, {"task": "toy_chat"}, apply_chat_template=True)
    first = chat_of(config, tokenizer, "base").sha256
    tokenizer.chat_template = TEMPLATE + " "
    assert first is not None and first != chat_of(config, tokenizer, "base").sha256
    tokenizer.chat_template = {"default": TEMPLATE, "other": TEMPLATE + "  "}
    assert chat_of(config, tokenizer, "base").sha256 == first
    named = config.model_copy(update={"apply_chat_template": "other"})
    assert chat_of(named, tokenizer, "base").sha256 != first


def test_new_runs_show_examples_as_turns(folder):
    config = make_score_config(folder, {"task": "toy_chat"}, apply_chat_template=True)
    assert config.fewshot_as_multiturn is None and not chat_of_turns(config)
    assert with_defaults(config).fewshot_as_multiturn is True
    plain = make_score_config(folder, {"task": "toy_chat"})
    assert with_defaults(plain).fewshot_as_multiturn is None


def chat_of_turns(config: ScoreConfig) -> bool:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return chat_of(config, tokenizer, "base").as_turns


NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{{ m['content'] }}{% endfor %}"
)
IGNORES_SYSTEM = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "changes", "says"),
    [
        (None, {}, "no chat template"),
        (TEMPLATE, {"apply_chat_template": "tool"}, "no chat template 'tool'; valid: true"),
        (
            {"default": TEMPLATE, "rag": TEMPLATE},
            {"apply_chat_template": "tool"},
            "valid: default, rag",
        ),
        (NO_SYSTEM, {"system_instruction": "b"}, "score.system_instruction: .* takes no system"),
        (IGNORES_SYSTEM, {"system_instruction": "b"}, "takes no system message"),
        (
            NO_SYSTEM,
            {"enable_thinking": False},
            "score.enable_thinking: .* has no variable 'enable_thinking'",
        ),
        (
            TEMPLATE,
            {"chat_template_args": {"think": 1}},
            "score.chat_template_args.think: .* has no variable 'think'",
        ),
        (
            "{{ raise_exception('no chats') }}",
            {},
            "the chat template of base fails: TemplateError: no chats",
        ),
    ],
)
def test_what_a_template_is_not(template, changes, says, folder):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    values = {"apply_chat_template": True, **changes}
    config = make_score_config(folder, {"task": "toy_chat"}, **values)
    with pytest.raises(InputError, match=says):
        chat_of(config, tokenizer, "base")


def test_a_description_that_a_template_has_no_place_for_is_left_out(folder, model):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = NO_SYSTEM
    config = make_score_config(folder, {"task": "toy_chat"}, apply_chat_template=True)
    assert not chat_of(config, tokenizer, "base").takes_system
    scorer = make_chat_scorer(config, model, tokenizer)
    check_equal(scorer, score(scorer), by_lm_eval(config, model, tokenizer))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fewshot_as_multiturn": True}, "fewshot_as_multiturn is part of a chat"),
        ({"enable_thinking": False}, "enable_thinking is part of a chat"),
        (
            {"apply_chat_template": True, "enable_thinking": True},
            "nothing says where the thinking ends",
        ),
        (
            {"apply_chat_template": True, "chat_template_args": {"tokenize": True}},
            "'tokenize' is set by evomerge itself",
        ),
        ({"think_end_token": ""}, "expected a text, or a token's id"),
        ({"think_end_token": -3}, "expected a text, or a token's id"),
    ],
)
def test_settings_that_do_not_go_together(changes, says, folder):
    with pytest.raises(ValidationError, match=says):
        make_score_config(folder, {"task": "toy_chat"}, **changes)


@pytest.mark.parametrize(
    ("task", "end", "says"),
    [
        ("toy_begun", "a", "score.enable_thinking: task 'toy_begun' asks for multiple_choice"),
        ("toy_chat", "<eos>", "'<eos>' is a special token, .*; give its id: 1"),
        ("toy_chat", "4000", "the tokenizer has no token 4000; valid: a text, or 0 to"),
    ],
)
def test_thinking_that_nobody_would_find(task, end, says, folder, tokenizer):
    config = make_score_config(
        folder,
        {"task": task},
        apply_chat_template=True,
        enable_thinking=True,
        think_end_token=end,
    )
    with pytest.raises(InputError, match=says):
        check_thinking(config, TaskSet(config, Path()), tokenizer)


def test_a_template_is_told_the_day_that_is_recorded(folder, tokenizer):
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} " + TEMPLATE
    config = with_defaults(
        make_score_config(folder, {"task": "toy_chat"}, apply_chat_template=True)
    )
    assert config.chat_date is not None
    long_ago = config.model_copy(update={"chat_date": date(2020, 1, 2)})
    text = chat_of(long_ago, tokenizer, "base").apply([{"role": "user", "content": "a"}])
    assert text.startswith("02 Jan 2020 ")
    tokenizer.chat_template = "{% set form = '%Y' %}{{ strftime_now(format=form) }} " + TEMPLATE
    text = chat_of(long_ago, tokenizer, "base").apply([{"role": "user", "content": "a"}])
    assert text.startswith("2020 ")
