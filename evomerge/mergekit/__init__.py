"""mergekit's configurations: read as recipes, and recipes written as them."""

from evomerge.mergekit.document import is_mergekit
from evomerge.mergekit.read import open_mergekit
from evomerge.mergekit.write import mergekit_yaml

__all__ = ["is_mergekit", "mergekit_yaml", "open_mergekit"]
