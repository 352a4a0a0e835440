"""The first files of somebody's own: a task from data."""
