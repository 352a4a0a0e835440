"""The `pool` section: which models a search may combine."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from evomerge.recipe import Dtype, Vocabulary
from evomerge.registry import Section


class ModelConfig(Section):
    """One model.

    Attributes:
        source: A local folder (relative to the configuration's own) or a hub id; of a whole model,
            or, for an expert, of a LoRA adapter of the base in PEFT's format.
        revision: Of a hub id; the resolved configuration holds the commit.
        name: How the search calls it; by default the last part of the source.
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
        base: The common ancestor; its architecture, tokenizer and tensors are the result's.
        experts: Fine-tunes of it, at least one.
        dtype: Type of the merged models; by default the base's.
        ignore_config: Fields of config.json in which an expert may differ from the base, whose
            values are used for every model.
        vocabulary: Which tokens the merged models have where tokenizers differ by added tokens; by
            default they may not differ.
        allow_nonfinite: Whether tensors may hold NaN or infinity; a candidate that comes out so
            fails all the same.
    """

    base: ModelEntry
    experts: tuple[ModelEntry, ...] = Field(min_length=1)
    dtype: Dtype | None = None
    ignore_config: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    allow_nonfinite: bool = False
