"""Recipes as models: in memory, and as checkpoints on disk."""

from evomerge.models.build import empty_model
from evomerge.models.export import export_checkpoint

__all__ = ["empty_model", "export_checkpoint"]
