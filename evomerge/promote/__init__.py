"""A candidate made a model to use: written, checked against its record, registered."""

from evomerge.promote.promote import (
    Promotion,
    compare_adapter,
    promote,
    promote_pick,
    promotion_table,
)

__all__ = ["Promotion", "compare_adapter", "promote", "promote_pick", "promotion_table"]
