"""mergekit's configurations: read as recipes, and recipes written as them."""

from evomerge.mergekit.document import is_mergekit
from evomerge.mergekit.read import open_mergekit

__all__ = ["is_mergekit", "open_mergekit"]
