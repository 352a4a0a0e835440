"""A recipe as a model in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from evomerge.merge import TORCH_DTYPES
from evomerge.pool import Pool, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def empty_model(pool: Pool, device: torch.device) -> PreTrainedModel:
    """A model of the pool's architecture whose weights are still to be written.

    Built from the configuration on the CPU, so that rotary buffers and ties are as transformers
    makes them; in the pool's dtype, evaluating, without gradients.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    config = read_config(pool.base.model_dir)
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=TORCH_DTYPES[pool.dtype])
    model.requires_grad_(False)
    model.eval()
    moved: PreTrainedModel = model.to(device)
    return moved
