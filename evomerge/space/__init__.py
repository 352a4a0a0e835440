"""Search spaces: genome to recipe and back."""

from evomerge.space import recipes
from evomerge.space.config import SPACES, ParameterSpaceConfig, Range, SpaceSection
from evomerge.space.parameter import ParameterSpace
from evomerge.space.protocol import Dimension, Genome, Space

SPACES.add(ParameterSpaceConfig, ParameterSpace)
__all__ = [
    "SPACES",
    "Dimension",
    "Genome",
    "ParameterSpace",
    "ParameterSpaceConfig",
    "Range",
    "Space",
    "SpaceSection",
    "recipes",
]
