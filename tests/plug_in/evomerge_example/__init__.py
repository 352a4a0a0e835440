"""A merge method, an optimizer and an engine of another package."""
