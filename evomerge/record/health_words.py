"""What the health of an evaluation comes to, in words."""

from __future__ import annotations

from typing import Any

from evomerge.score.health import SIGNS


def health_lines(table: dict[str, Any]) -> list[str]:
    """Signs of a sick evaluation that people should know of, a line each."""
    lines = []
    for entry in table.get("health", ()):
        told = SIGNS[entry["sign"]]
        shares = {name: count / entry["num_documents"] for name, count in entry["counts"].items()}
        if max(shares.values()) >= told.warns_from:
            models = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            lines.append(
                f"health, {entry['task']}: {told.what}: {models} "
                f"(of {entry['num_documents']} {entry['split']} documents)"
            )
    for entry in table.get("at_chance", ()):
        chance = f"chance ({entry['chance']:.3f})" if entry["chance"] else "zero"
        who = "every model" if entry["is_all"] else ", ".join(entry["candidates"])
        lines.append(
            f"health, {entry['objective']}: {who} cannot be told from {chance} on "
            f"{entry['split']} documents"
        )
    return lines
