"""A merge method, an optimizer, an engine and an objective of another package."""
