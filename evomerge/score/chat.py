"""How a task's messages become the text that a model is asked: plainly, or by a chat template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from evomerge.errors import InputError
from evomerge.files import sha256_json
from evomerge.score.config import ScoreConfig
from evomerge.score.faults import told_as
from evomerge.score.templates import fill_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]
"""A chat: the role and the content of each message."""


@dataclass(frozen=True)
class Chat:
    """How a task's messages become the text that a model is asked.

    Attributes:
        apply: The text of a chat; None: messages stand one after another, without a template.
        system_instruction: Stands before everything else.
        as_turns: Whether each example is a question and an answer of the chat; else the examples
            and the question are one message.
        sha256: Of the template, in hex; None without one.
        takes_system: Whether the template has a place for what stands before everything else.
    """

    apply: Callable[..., str] | None = None
    system_instruction: str | None = None
    as_turns: bool = False
    sha256: str | None = None
    takes_system: bool = True


PLAIN = Chat()
"""No template, and no instruction."""


def chat_of(config: ScoreConfig, tokenizer: PreTrainedTokenizerBase, owner: str) -> Chat:
    """How a configuration asks models.

    Args:
        config: The `score` section.
        tokenizer: Has the template.
        owner: The model that the tokenizer is of, for messages.

    Raises:
        InputError: The tokenizer has no such template, or the template has no place for what the
            configuration says.
    """
    if not config.apply_chat_template:
        return Chat(system_instruction=config.system_instruction)
    template = _template(tokenizer, config.apply_chat_template, owner)
    arguments = config.template_arguments
    for name in arguments:
        if re.search(rf"\b{re.escape(name)}\b", template) is None:
            key = name if name == "enable_thinking" else f"chat_template_args.{name}"
            raise InputError(
                f"score.{key}: the chat template of {owner} has no variable {name!r}; leave it out"
            )
    apply = partial(_apply, tokenizer, template, owner, config.chat_date, arguments)
    takes_system = _takes_system(apply, owner)
    if config.system_instruction is not None and not takes_system:
        raise InputError(
            f"score.system_instruction: the chat template of {owner} takes no system message; "
            "leave it out, or put it into the task's doc_to_text"
        )
    return Chat(
        apply=apply,
        system_instruction=config.system_instruction,
        as_turns=bool(config.fewshot_as_multiturn),
        sha256=sha256_json(template),
        takes_system=takes_system,
    )


def _template(tokenizer: PreTrainedTokenizerBase, wanted: bool | str, owner: str) -> str:
    """The text of a tokenizer's template, by name where it has several."""
    found: Any = tokenizer.chat_template
    if found is None:
        raise InputError(
            f"score.apply_chat_template: the tokenizer of {owner} has no chat template; leave it "
            "out, or take a base that has one"
        )
    if not isinstance(found, Mapping):
        found = {"true": found}
    default = "default" if "default" in found else "true"
    name = wanted if isinstance(wanted, str) else default
    if name not in found:
        raise InputError(
            f"score.apply_chat_template: the tokenizer of {owner} has no chat template {name!r}; "
            f"valid: {', '.join(found)}"
        )
    return str(found[name])


def _apply(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    owner: str,
    day: date | None,
    arguments: Mapping[str, Any],
    messages: Messages,
    *,
    add_generation_prompt: bool = True,
) -> str:
    """The text of a chat; where a template takes no system message, without it, as in lm-eval."""

    def fill(chat: Messages) -> str:
        return fill_in(
            tokenizer,
            template,
            chat,
            owner=owner,
            day=day,
            add_generation_prompt=add_generation_prompt,
            arguments=arguments,
        )

    try:
        return fill(messages)
    except TemplateError:
        without = [message for message in messages if message["role"] != "system"]
        if len(without) == len(messages):
            raise
        return fill(without)


def _takes_system(apply: Callable[..., str], owner: str) -> bool:
    """Whether what a system message says is in the text.

    Raises:
        InputError: The template fails, or leaves out what the user says.
    """
    system, asked = "evomerge-9c1f", "evomerge-71ab"
    # A template computes, and whatever a computation raises comes out of it.
    with told_as(InputError, f"score.apply_chat_template: the chat template of {owner} fails"):
        text = apply([{"role": "system", "content": system}, {"role": "user", "content": asked}])
    if asked not in text:
        raise InputError(
            f"score.apply_chat_template: the chat template of {owner} leaves out what the user "
            "says, when that is a text and not a list of parts; leave apply_chat_template out, or "
            "take a base with another template"
        )
    return system in text
