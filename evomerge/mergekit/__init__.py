"""mergekit's configurations: read as recipes, and recipes written as them."""

from evomerge.mergekit.document import Document, read_documents
from evomerge.mergekit.kinds import is_mergekit, kind_of, require_model
from evomerge.mergekit.read import LayerMadeTwiceError, check_parameters, open_document
from evomerge.mergekit.restack import needs_stacks, restacked
from evomerge.mergekit.write import mergekit_yaml

__all__ = [
    "Document",
    "LayerMadeTwiceError",
    "check_parameters",
    "is_mergekit",
    "kind_of",
    "mergekit_yaml",
    "needs_stacks",
    "open_document",
    "read_documents",
    "require_model",
    "restacked",
]
