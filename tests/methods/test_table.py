"""The documentation's table of methods is what the registry says."""

from pathlib import Path

from evomerge.methods import METHODS
from evomerge.methods.table import PATH, render

ROOT = Path(__file__).parents[2]


def test_the_documentation_is_up_to_date():
    assert (ROOT / PATH).read_text() == render()


def test_every_method_describes_itself():
    for kind in METHODS:
        config = METHODS[kind].config
        assert f"\n## {kind}\n" in render()
        for option in config.model_fields.keys() - {"kind"}:
            assert f"- `{option}`:" in render().partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
