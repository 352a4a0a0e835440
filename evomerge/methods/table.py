"""docs/methods.md, made from the registry by `python -m evomerge.methods.table`."""

from __future__ import annotations

import inspect
from pathlib import Path

from evomerge.methods import METHODS
from evomerge.methods.protocol import Needs, Parameter
from evomerge.registry import Choice

PATH = Path("docs/methods.md")

HEAD = """# Merge methods

Made by `python -m evomerge.methods.table` from what the methods say of themselves. A recipe or a
configuration names a method by its `kind`; options are shown with what they are when nothing is
said. Parameters are the numbers that a recipe gives and a search varies, with default
and range; those in parentheses a search leaves alone unless its configuration names them. A
parameter that is *shared* has one value for the merge, all others one for each model.

| kind | parameters | options | needs |
| --- | --- | --- | --- |
"""


def render() -> str:
    """The whole file."""
    rows, texts = [], []
    for kind in sorted(METHODS):
        config = METHODS[kind].config
        method = METHODS.make(config(kind=kind))
        cells = (
            f"`{kind}`",
            ", ".join(_parameter(parameter) for parameter in method.parameters),
            ", ".join(_options(config)),
            ", ".join(_needs(method.needs)) or "nothing more",
        )
        rows.append(f"| {' | '.join(cells)} |\n")
        texts.append(f"\n## {kind}\n\n{_text(config)}\n")
    return HEAD + "".join(rows) + "".join(texts)


def _parameter(parameter: Parameter) -> str:
    span = ""
    if parameter.low is not None:
        span = f", {parameter.low:g} or more"
        if parameter.high is not None:
            span = f", {parameter.low:g} to {parameter.high:g}"
    shared = ", shared" if parameter.scope == "shared" else ""
    text = f"{parameter.name} {parameter.default:g}{span}{shared}"
    return f"`{text}`" if parameter.varies else f"(`{text}`)"


def _options(config: type[Choice]) -> list[str]:
    return [
        f"`{name}: {_value(field.default)}`"
        for name, field in config.model_fields.items()
        if name != "kind"
    ]


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _needs(needs: Needs) -> list[str]:
    words = []
    if needs.base:
        words.append("base")
    if needs.num_models is not None:
        words.append(f"exactly {needs.num_models} models")
    elif needs.least_models > 1:
        words.append(f"{needs.least_models} models or more")
    if needs.whole_tensor:
        words.append("whole tensors")
    if needs.whole_model:
        words.append("all tensors")
    return words


def _text(config: type[Choice]) -> str:
    """The settings' description, its list of options as one of Markdown."""
    text, _, options = inspect.cleandoc(config.__doc__ or "").partition("\n\nAttributes:\n")
    lines: list[str] = []
    for line in options.splitlines():
        # An option begins at four blanks, its continuation lies deeper.
        if line.startswith("     "):
            lines[-1] += f" {line.strip()}"
        elif line.strip():
            name, _, meaning = line.strip().partition(":")
            lines.append(f"- `{name}`:{meaning}")
    return text + ("\n\n" + "\n".join(lines) if lines else "")


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
