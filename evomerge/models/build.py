"""A recipe as a model in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from evomerge.merge import TORCH_DTYPES
from evomerge.models.spread import spread
from evomerge.pool import Pool, config_of_checkpoint, has_model_code
from evomerge.pool.from_transformers import generation_config_in, model_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

GENERATION_FILE = "generation_config.json"


def config_of(pool: Pool) -> PreTrainedConfig:
    """The configuration of a pool's models, as they are once their vocabularies are one."""
    config = config_of_checkpoint(pool.base)
    for name, value in pool.vocabulary_config.items():
        setattr(config, name, value)
    return config


def empty_model(
    pool: Pool, device: torch.device, others: Sequence[torch.device] = ()
) -> PreTrainedModel:
    """A model of the pool's architecture whose weights are still to be written.

    Built from the configuration on the CPU, so that rotary buffers and ties are as transformers
    makes them; in the pool's dtype, evaluating, without gradients. It generates by the base's
    generation settings, as an exported checkpoint does.

    Args:
        pool: The models.
        device: Where it is.
        others: Further devices, over which it is spread together with the first.

    Raises:
        InputError: The base's generation_config.json cannot be read, or the model cannot be spread.
    """
    from transformers.initialization import no_init_weights

    config = config_of(pool)
    with no_init_weights():
        has_code = pool.base.trusted and has_model_code(config)
        model = model_of(config, with_code=has_code, dtype=TORCH_DTYPES[pool.dtype])
    # Without initialization transformers leaves a tied head apart, on memory never written.
    model.tie_weights()
    model_dir = pool.base.model_dir
    if (model_dir / GENERATION_FILE).is_file():
        model.generation_config = generation_config_in(model_dir)
    model.requires_grad_(False)
    model.eval()
    if others:
        spread(model, pool.layout, (device, *others))
        return model
    moved: Any = model
    placed: PreTrainedModel = moved.to(device)
    return placed
