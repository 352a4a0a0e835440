"""A merge method and an optimizer of another package."""
