"""Where models run: what answers the requests of a scorer."""

from evomerge.backends.config import (
    BACKENDS,
    BATCHED,
    Batching,
    EngineConfig,
    HflmEngine,
    OwnEngine,
    engine_of,
    require_paths,
    require_spread,
)
from evomerge.backends.hugging_face import HuggingFaceBackend, open_resident

BACKENDS.add(OwnEngine, open_resident)
BACKENDS.add(HflmEngine, open_resident)

__all__ = [
    "BACKENDS",
    "BATCHED",
    "Batching",
    "EngineConfig",
    "HflmEngine",
    "HuggingFaceBackend",
    "OwnEngine",
    "engine_of",
    "open_resident",
    "require_paths",
    "require_spread",
]
