"""Python for a process that is to find some packages not installed."""

from __future__ import annotations

WITHOUT = '''
import sys

class Without:
    """A finder that does not find some packages, as if they were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        is_missing = name.partition(".")[0] in {"mlflow", "plotly", "prefect", "ray", "sqlalchemy"}
        return None if is_missing else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
'''
