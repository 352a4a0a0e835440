"""Search spaces: genome to recipe and back.

Factories take (config, pool, merged): `merged` is the recipe that an earlier phase chose, or None.
"""

from typing import Any

from evomerge.pool import Pool
from evomerge.recipe import Recipe
from evomerge.space import path_config, recipes
from evomerge.space.config import SPACES, ParameterSpaceConfig, Range, SpaceSection
from evomerge.space.few_numbers import RemoveLayers, RepeatSpan, Slices
from evomerge.space.joint import JointSpace
from evomerge.space.layer_order import LayerOrder
from evomerge.space.layer_swap import LayerSwap
from evomerge.space.parameter import ParameterSpace
from evomerge.space.paths import PathSpace
from evomerge.space.protocol import Dimension, Genome, Space


def _paths(encoding: Any) -> Any:
    def make(config: Any, pool: Pool, merged: Recipe | None) -> PathSpace:
        return PathSpace(encoding(config, pool, merged is not None), pool, merged)

    return make


def _plain(space: Any) -> Any:
    def make(config: Any, pool: Pool, _merged: Recipe | None) -> Any:
        return space(config, pool)

    return make


SPACES.add(ParameterSpaceConfig, _plain(ParameterSpace))
SPACES.add(path_config.LayerOrderConfig, _paths(LayerOrder))
SPACES.add(path_config.SlicesConfig, _paths(Slices))
SPACES.add(path_config.RemoveLayersConfig, _paths(RemoveLayers))
SPACES.add(path_config.RepeatSpanConfig, _paths(RepeatSpan))
SPACES.add(path_config.LayerSwapConfig, _plain(LayerSwap))
SPACES.add(path_config.JointSpaceConfig, _plain(JointSpace))

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
