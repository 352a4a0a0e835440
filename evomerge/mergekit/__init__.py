"""mergekit's configurations: read as recipes, and recipes written as them."""

from evomerge.mergekit.document import Document, read_documents
from evomerge.mergekit.kinds import is_mergekit, kind_of, require_model
from evomerge.mergekit.read import open_document
from evomerge.mergekit.write import mergekit_yaml

__all__ = [
    "Document",
    "is_mergekit",
    "kind_of",
    "mergekit_yaml",
    "open_document",
    "read_documents",
    "require_model",
]
