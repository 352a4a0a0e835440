"""What a merged model writes, beside its base and its experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from evomerge.backends.hugging_face import max_length_of
from evomerge.errors import InputError
from evomerge.models.build import config_of
from evomerge.models.candidates import Candidates
from evomerge.models.export import RECIPE_FILE
from evomerge.models.from_recipe import open_recipe
from evomerge.models.path_proof import prove_paths
from evomerge.models.resident import ResidentModel
from evomerge.pool import ModelConfig, Pool, is_model, load_tokenizer, open_models
from evomerge.pool.adapters.adapter import is_adapter
from evomerge.pool.pool import entry_of
from evomerge.recipe import Recipe
from evomerge.score.faults import told_as
from evomerge.score.templates import fill_in
from evomerge.space import recipes
from evomerge.workers.worker import quiet_libraries

ITSELF = "evomerge-sampled"
"""What the folder that is asked is called among its models; its own name may be none of a model."""


@dataclass(frozen=True)
class Sample:
    """What a model wrote.

    Attributes:
        model: Its name; of the merge the name of its file or folder.
        prompt: What it was asked.
        text: The answer, without the prompt.
    """

    model: str
    prompt: str
    text: str


def sample(
    path: Path,
    prompts: Sequence[str],
    *,
    max_tokens: int = 64,
    is_chat: bool = False,
    ignores_unknown: bool = False,
    report: Callable[[str, int, int], None] = lambda _name, _number, _of: None,
) -> list[Sample]:
    """Let a merge, its base and its experts answer prompts, each with the likeliest tokens.

    Args:
        path: A recipe, a mergekit configuration, a checkpoint, or a LoRA adapter of a merge. A
            folder answers with the weights that lie in it; without a recipe, it answers alone.
        prompts: At least one.
        max_tokens: Of an answer.
        is_chat: Whether prompts are wrapped in the tokenizer's chat template.
        ignores_unknown: See `open_recipe`.
        report: Is told which model answers next, the how manieth, of how many.

    Returns:
        Answers by prompt, then by model; the merge comes last.

    Raises:
        InputError: There is no such model, or a prompt has no token or too many.
    """
    if not prompts:
        raise InputError("sample: no prompts; give --prompt TEXT or --prompts FILE")
    if max_tokens < 1:
        raise InputError(f"--max-tokens: {max_tokens}; valid: 1 or more")
    quiet_libraries()
    pool, asked = _open(path, ignores_unknown=ignores_unknown)
    if any(recipe.path is not None for recipe in asked.values()):
        prove_paths(pool)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(pool)
    tokens = [_tokens(tokenizer, prompt, is_chat) for prompt in prompts]
    _require_places(max_length_of(config_of(pool), tokenizer), prompts, tokens, max_tokens)
    resident = ResidentModel(pool, device)
    candidates = Candidates(pool, device, resident)
    written: dict[str, list[str]] = {}
    for number, (name, recipe) in enumerate(asked.items(), 1):
        report(name, number, len(asked))
        candidates.load(recipe)
        written[name] = [_write(resident, tokenizer, each, max_tokens) for each in tokens]
    return [
        Sample(name, prompt, written[name][number])
        for number, prompt in enumerate(prompts)
        for name in asked
    ]


def _open(path: Path, *, ignores_unknown: bool) -> tuple[Pool, dict[str, Recipe]]:
    """The models, and a recipe for each that answers."""
    is_folder = path.is_dir()
    if not is_folder and not path.is_file():
        raise InputError(f"no recipe or model folder {str(path)!r}")
    if is_model(path) and not (path / RECIPE_FILE).is_file():
        if is_adapter(path):
            raise InputError(
                f"{path} is a LoRA adapter without a {RECIPE_FILE}, which would name its base"
            )
        pool = open_models(ModelConfig(source=str(path.resolve())), (), None, Path())
        name = path.resolve().name if is_folder else path.name
        return pool, {name: recipes.member(pool, "base")}
    recipe_path = path / RECIPE_FILE if is_folder else path
    pool, recipe = open_recipe(recipe_path, ignores_unknown=ignores_unknown)
    name = path.resolve().name if is_folder else path.stem
    name = name if name not in {each.name for each in pool} else f"{name} (merge)"
    if is_folder and recipe.path is None and recipe.vocabulary is None:
        # What lies there, which may be a copy in another type or a LoRA adapter of the merge.
        base, *experts = (entry_of(each.name, each.source) for each in pool)
        merge = ModelConfig(source=str(path.resolve()), name=ITSELF)
        pool = open_models(base, (*experts, merge), None, Path())
        asked = {each.name: recipes.member(pool, each.name) for each in pool}
        return pool, {name if each == ITSELF else each: asked[each] for each in asked}
    return pool, {each.name: recipes.member(pool, each.name) for each in pool} | {name: recipe}


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        InputError: It is not there, or no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"--prompts: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"--prompts: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    return [line for line in text.splitlines() if line.strip()]


def _tokens(tokenizer: Any, prompt: str, is_chat: bool) -> list[int]:
    if is_chat:
        if not tokenizer.chat_template:
            raise InputError("--chat: the base's tokenizer has no chat template; leave it out")
        turns = [{"role": "user", "content": prompt}]
        with told_as(InputError, "--chat: the chat template of the base fails"):
            text = fill_in(tokenizer, tokenizer.get_chat_template(), turns, owner="the base")
        tokens = tokenizer.encode(text, add_special_tokens=False)
    else:
        tokens = tokenizer.encode(prompt)
    if not tokens:
        raise InputError(f"prompt {prompt!r} has no tokens")
    return list(tokens)


def _require_places(
    most: int, prompts: Sequence[str], tokens: Sequence[Sequence[int]], max_tokens: int
) -> None:
    """Refuse prompts that with their answers are longer than a model reads."""
    for prompt, each in zip(prompts, tokens, strict=True):
        if len(each) + max_tokens > most:
            start = f"{prompt[:40]}..." if len(prompt) > 40 else prompt
            raise InputError(
                f"prompt {start!r} has {len(each)} tokens, which with --max-tokens {max_tokens} is "
                f"more than the model's {most} places; valid: a shorter prompt, or fewer tokens"
            )


def _write(resident: ResidentModel, tokenizer: Any, tokens: list[int], max_tokens: int) -> str:
    model: Any = resident.model
    ends = model.generation_config.eos_token_id
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
    )
    inputs = torch.tensor([tokens], device=model.device)
    with torch.no_grad():
        whole = model.generate(
            inputs, attention_mask=torch.ones_like(inputs), generation_config=config
        )
    text: str = tokenizer.decode(whole[0, len(tokens) :], skip_special_tokens=True)
    return text
