"""Checkpoints: where they lie, what is in them, and whether they fit together."""

from evomerge.pool.adapters.adapter import Adapter
from evomerge.pool.added_tokens import (
    copy_companions,
    load_tokenizer,
    write_added_tokens,
)
from evomerge.pool.checkpoint import Checkpoint
from evomerge.pool.config import ModelConfig, PoolConfig
from evomerge.pool.layout import (
    Layout,
    Place,
    blocks_prefix,
    config_of_checkpoint,
    has_model_code,
    read_config,
)
from evomerge.pool.pool import DTYPES, Pool, open_members, open_models, open_pool
from evomerge.pool.quantized import is_model

__all__ = [
    "DTYPES",
    "Adapter",
    "Checkpoint",
    "Layout",
    "ModelConfig",
    "Place",
    "Pool",
    "PoolConfig",
    "blocks_prefix",
    "config_of_checkpoint",
    "copy_companions",
    "has_model_code",
    "is_model",
    "load_tokenizer",
    "open_members",
    "open_models",
    "open_pool",
    "read_config",
    "write_added_tokens",
]
