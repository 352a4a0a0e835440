"""The `pool` section: which models a search may combine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from evomerge.recipe import Dtype
from evomerge.registry import Section
from evomerge.tokens import Vocabulary


class ModelConfig(Section):
    """One model.

    Attributes:
        source: A local folder (relative to the configuration's own) or a hub id; of a whole model,
            or, for an expert, of a LoRA adapter of the base in PEFT's format.
        revision: A branch, tag or commit, where the source is a hub id; the resolved configuration
            holds the commit.
        name: The model's name in this search; by default the last part of the source.
    """

    source: str
    revision: str | None = None
    name: str | None = None


def _from_string(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


ModelEntry = Annotated[
    ModelConfig, BeforeValidator(_from_string, json_schema_input_type=str | ModelConfig)
]


class PoolConfig(Section):
    """The base model and its fine-tunes.

    Attributes:
        base: The model that all experts were fine-tuned from; merged models have its architecture
            and its tokenizer.
        experts: Fine-tunes of the base, at least one.
        dtype: Type of the merged models; by default the base's.
        ignore_config: Fields of config.json in which an expert may differ from the base, whose
            values are used for every model.
        vocabulary: Which tokens the merged models have where tokenizers differ; by default they may
            not.
        allow_nonfinite: Whether tensors may hold NaN or infinity; a candidate that comes out so
            fails all the same.
        trust_remote_code: Names of models ("base", an expert's) whose folders' Python code is run,
            with all rights of whoever searches; by default none.
        component_rules: By which rules tensors' kinds are read from names: 2 knows mixers, MLPs
            called fc1 and fc2, and the parts that Gemma 3n has for each layer; 1 calls these
            "other". Runs from before the second rules keep the first; others have 2.
    """

    base: ModelEntry
    experts: tuple[ModelEntry, ...] = Field(min_length=1)
    dtype: Dtype | None = None
    ignore_config: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    allow_nonfinite: bool = False
    trust_remote_code: tuple[str, ...] = ()
    component_rules: Literal[1, 2] | None = None
