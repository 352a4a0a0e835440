"""What a final table comes to, in words."""

from __future__ import annotations

from typing import Any

from evomerge.objectives.units import Unit
from evomerge.record.columns import scale_of
from evomerge.score.health import SIGNS

ROLES = {
    "best_parent": "the best parent",
    "best_baseline": "the best un-evolved merge",
    "random": "random search with as many candidates",
    "simplest": "the simplest model within one standard error on validation",
}


def verdict_lines(table: dict[str, Any]) -> list[str]:
    """Everything that is said of a final table, in words; the first line is the verdict."""
    return [
        verdict(table),
        *limit_lines(table),
        *comparison_lines(table, without=_told_by_verdict(table)),
        *synergy_lines(table),
        *explanation_lines(table.get("explanation"), table),
        *monitor_lines(table),
        *shrinkage_lines(table),
        *leak_lines(table),
        *health_lines(table),
        *fidelity_lines(table),
        *duplicate_lines(table.get("duplicates", {})),
        *prompt_lines(table.get("prompts", {})),
    ]


def verdict(table: dict[str, Any]) -> str:
    """What was found, in one line: whether the chosen model is better than every parent."""
    chosen = table["chosen"]
    if chosen is None:
        return "no model is chosen yet"
    if table.get("over_limit"):
        return f"no model keeps every limit; {chosen} comes nearest"
    if chosen in table["parents"]:
        return f"nothing found is better than {chosen}: keep it"
    gains = {entry["role"]: entry for entry in table["comparisons"]}
    if "best_parent" not in gains:
        return f"{chosen} is chosen; it was not compared with a parent on holdout yet"
    gain = gains["best_parent"]
    parent, change = gain["candidate"], _change(table, gain)
    if gain["distinguishable"] and gain["value"] > 0.0:
        return (
            f"{chosen} is better than every parent: {change} (on holdout, against {parent}, the "
            "best of them)"
        )
    if gain["distinguishable"]:
        return (
            f"nothing found is better than {parent}: keep it ({chosen}, chosen on validation, is "
            f"worse on holdout: {change})"
        )
    return (
        f"nothing found is shown to be better than {parent}: keep it ({chosen}, chosen on "
        f"validation, differs on holdout by {change})"
    )


def _change(table: dict[str, Any], gain: dict[str, Any], objective: str | None = None) -> str:
    """A difference of an objective, or of the combined score, with its interval and unit."""
    scale = scale_of(table, objective)
    if scale is not None:
        return scale.change(gain)
    # A sum of several units says nothing to anybody: each objective by itself.
    changes = []
    for name, each in gain["objectives"].items():
        own = scale_of(table, name)
        assert own is not None
        changes.append(f"{name} {own.change(each)}")
    return "; ".join(changes)


def _told_by_verdict(table: dict[str, Any]) -> str | None:
    """The comparison whose numbers stand in the verdict."""
    return None if table.get("over_limit") else "best_parent"


def comparison_lines(table: dict[str, Any], *, without: str | None = None) -> list[str]:
    """The paired differences on holdout, in words.

    Args:
        table: The final table.
        without: The role of one that is left out.
    """
    lines = []
    for entry in table["comparisons"]:
        if entry["role"] == without:
            continue
        verdict = "" if entry["distinguishable"] else ": not distinguishable"
        lines.append(
            f"{table['chosen']} against {ROLES[entry['role']]} ({entry['candidate']}) on holdout: "
            f"{_change(table, entry)}{verdict}"
        )
    earlier = table.get("earlier", [])
    if earlier:
        look = {1: "second", 2: "third"}.get(len(earlier), f"{len(earlier) + 1}th")
        lines.append(
            f"{look} look: the search went on after {', '.join(dict.fromkeys(earlier))} had been "
            "chosen and the holdout opened; holdout scores of a new choice are no first look"
        )
    return lines


def limit_lines(table: dict[str, Any]) -> list[str]:
    """Limits that the chosen model does not keep, a line each."""
    return [
        f"limit: {table['chosen']} does not keep the limit of {entry['objective']}, "
        f"{_value(table, entry, 'limit')}: it has {_value(table, entry, 'value')} on validation; "
        "of the finalists it comes nearest"
        for entry in table.get("over_limit", ())
    ]


def _value(table: dict[str, Any], entry: dict[str, Any], what: str) -> str:
    scale = scale_of(table, entry["objective"])
    assert scale is not None
    return scale.unit.show(entry[what], like=entry["limit"])


def part_words(part: dict[str, Any]) -> str:
    """What is taken away, in words."""
    if part["kind"] == "difference":
        return f"difference {part['what']}"
    return f"expert {part['what']}" if part["kind"] == "expert" else str(part["what"])


def explanation_lines(found: dict[str, Any] | None, table: dict[str, Any]) -> list[str]:
    """What is worth nothing that the documents show, and the simplest model, in words.

    Args:
        found: See `explanation`.
        table: The final table, or its units.
    """
    if not found:
        return []
    lines = []
    who = found["candidate"]
    idle = [p for p in found["parts"] if not p["combined"]["distinguishable"]]
    harmful = [p for p in found["parts"] if p["combined"]["high"] < 0.0]
    failed = found.get("failed")
    needed = len(found["parts"]) - len(idle) - len(harmful)
    if found["parts"]:
        lines.append(
            f"ablation: {needed} of {len(found['parts'])} parts of {who} are worth something on "
            "validation, whose documents chose it too"
            + (f"; not shown of {', '.join(map(part_words, idle))}" if idle else "")
            + (f"; better without {', '.join(map(part_words, harmful))}" if harmful else "")
            + (f"; not scored: {', '.join(map(part_words, found['failed']))}" if failed else "")
        )
    simplest = found["simplest"]
    if simplest is None:
        lines.append(f"simplest: no simpler model that was tried is as good as {who}")
        return lines
    ours, theirs = zip(*(simplest[name] for name in ("experts", "jumps", "numbers")), strict=True)
    change = _change(table, _turned(simplest))
    lines.append(
        f"simplest: {_called(found)} has {_size(*theirs)}, {who} {_size(*ours)}; it differs "
        f"by {change} on validation, at most one standard error for the worse"
    )
    return lines


def _called(found: dict[str, Any]) -> str:
    """The simplest model's id; and what it is, where it is the candidate without a part."""
    name = str(found["simplest"]["candidate"])
    for part in found["parts"]:
        if part["candidate"] == name:
            return f"{name} ({found['candidate']} without {part_words(part)})"
    return name


def _size(experts: int, jumps: int, numbers: int) -> str:
    words = [f"{experts} expert" + ("" if experts == 1 else "s")]
    words += [f"{jumps} jump" + ("" if jumps == 1 else "s")] if jumps else []
    words += [f"{numbers} number" + ("" if numbers == 1 else "s")] if numbers else []
    return ", ".join(words)


def _turned(gain: dict[str, Any]) -> dict[str, Any]:
    """Differences of the second to the first, for those of the first to the second."""

    def turned(each: dict[str, Any]) -> dict[str, Any]:
        return each | {"value": -each["value"], "low": -each["high"], "high": -each["low"]}

    objectives = {name: turned(each) for name, each in gain["objectives"].items()}
    return {**turned(gain["combined"]), "objectives": objectives}


def monitor_lines(table: dict[str, Any]) -> list[str]:
    """What held-out tasks say, which steered nothing, in words."""
    lines = []
    for entry in table.get("monitors", ()):
        if "gain" not in entry:
            lines.append(f"held out, {entry['name']} ({entry['metric']}): not measured yet")
            continue
        gain, ours, theirs = entry["gain"], entry["chosen"], entry["best_parent"]
        if not gain["distinguishable"]:
            verdict = "not distinguishable"
        else:
            verdict = "better" if gain["value"] > 0.0 else "worse"
        scale = scale_of(table, entry["name"])
        assert scale is not None
        lines.append(
            f"held out, {entry['name']} ({entry['metric']}): {ours['candidate']} "
            f"{scale.show(ours)}, the best parent ({theirs['candidate']}) {scale.show(theirs)}; "
            f"{scale.change(gain)}: {verdict}"
        )
    return lines


def duplicate_lines(duplicates: dict[str, Any]) -> list[str]:
    """Which documents share a split, a line each."""
    lines = []
    near = duplicates.get("near")
    if near:
        counts = ", ".join(f"{count:,} of {task}" for task, count in near.items())
        lines.append(f"near-duplicates: documents that say nearly the same share a split: {counts}")
    shared = duplicates.get("group_by")
    if shared:
        lines.append(
            f"group_by: documents that agree in {shared['field']!r} share a split: "
            f"{shared['num_groups']:,} {'group' if shared['num_groups'] == 1 else 'groups'} of two "
            "or more"
        )
    return lines


def fidelity_lines(table: dict[str, Any]) -> list[str]:
    """What a search on samples of documents spent, and how its estimates were checked."""
    found = table.get("fidelity")
    if not found:
        return []
    spent, full = found["num_documents"], found["num_documents_full"]
    lines = [
        f"fidelity: {spent:,} search documents were scored, {spent / full:.0%} of the {full:,} "
        f"that all candidates have; the scores of {found['num_estimated']:,} candidates are "
        "estimates (~)"
    ]
    if "num_tokens" in found:
        tokens, whole = found["num_tokens"], found["num_tokens_full"]
        lines[0] += f"; {tokens:,} tokens were run, about {tokens / whole:.0%} of {whole:,}"
    check = found["calibration"]
    if check is not None:
        verdict = ": standard errors are too small" if check["is_refuted"] else ""
        count, covered = check["num_checked"], check["num_covered"]
        whom = "1 candidate was" if count == 1 else f"{count} candidates were"
        lines.append(
            f"calibration: {whom} scored in full as well, and {covered} of them within 1.96 "
            f"standard errors of the estimate; mean difference {check['bias']:+.3f}, root mean "
            f"square {check['error']:.3f}{verdict}"
        )
    return lines


def prompt_lines(prompts: dict[str, Any]) -> list[str]:
    """Whether prompts are chats, beside whether the base knows any."""
    if not prompts:
        return []
    if prompts["template"] is None:
        if not prompts["base_has_template"]:
            return ["prompts: plain text; the base's tokenizer has no chat template"]
        return [
            "prompts: plain text; the base's tokenizer has a chat template, which "
            "score.apply_chat_template: true applies"
        ]
    examples = "examples as turns" if prompts["as_turns"] else "examples in one message"
    line = f"prompts: chats by the base's template (SHA-256 {prompts['template'][:12]}), {examples}"
    if prompts["without_descriptions"]:
        line += "; it takes no system message, so that tasks' descriptions are left out"
    return [line]


def shrinkage_lines(table: dict[str, Any]) -> list[str]:
    """Scores and gains that shrink by more than their errors explain, a line each."""
    lines = []
    for entry in table.get("shrinkage", ()):
        if entry["low"] <= 0.0:
            continue
        what = "gain over base and experts" if entry["is_gain"] else "score"
        who, remedy = entry["candidates"][0], "take more validation documents"
        if entry["of"] == "finalists":
            count = len(entry["candidates"])
            who = f"{count} finalists" if count > 1 else f"the finalist {who}"
            what = f"mean {what}" if count > 1 else what
            remedy = "take more search documents, or search fewer candidates"
        first, second, change = shrunk(table, entry)
        lines.append(
            f"overfit: the {what} of {who} got worse, from {first} on {entry['first']} to "
            f"{second} on {entry['second']} documents, by {change}; this is more than the standard "
            f"errors explain; {remedy}"
        )
    return lines


def shrunk(table: dict[str, Any], entry: dict[str, Any]) -> tuple[str, str, str]:
    """A score or gain on two splits, and by how much it gets worse, in the unit that it has."""
    scale = scale_of(table, None)
    unit = Unit() if scale is None else scale.unit
    first, second = entry["value_first"], entry["value_second"]
    change = unit.change(entry["value"], entry["low"], entry["high"])
    if scale is None or entry["is_gain"]:
        return unit.amount(first), unit.amount(second), change
    return unit.show(scale.value(first)), unit.show(scale.value(second)), change


def synergy_lines(table: dict[str, Any]) -> list[str]:
    """The chosen model against the best parent of each task."""
    found = table.get("synergy")
    if not found:
        return []
    best = ", ".join(f"{objective}: {name}" for objective, name in found["best"].items())
    verdict = "" if found["distinguishable"] else ": not distinguishable"
    return [
        f"synergy, {table['chosen']} against the best parent of each objective ({best}) on "
        f"holdout: {_change(table, found)}{verdict}"
    ]


def leak_lines(table: dict[str, Any]) -> list[str]:
    """What models gain on documents that stand in the training text, a line for each measure."""
    lines = []
    for entry in table.get("leaks", ()):
        if not entry["models"]:
            lines.append(
                f"leak, {entry['measure']}: {entry['num_leaked']} of {entry['num_documents']} "
                f"{entry['split']} documents stand in the training text in part; too few, or too "
                "many, to compare with the others"
            )
        for name, gain in entry["models"].items():
            # Tables of an earlier release have no p-value.
            chance = f", p = {gain['p_value']:.3f}" if "p_value" in gain else ""
            is_one = gain.get("distinguishable", gain["low"] > 0.0)
            verdict = "" if is_one else ": not distinguishable"
            lines.append(
                f"leak, {entry['measure']}: {name} scores {gain['marked']:.3f} on "
                f"{gain['num_marked']} {entry['split']} documents of which {gain['threshold']:.0%} "
                f"or more stands in the training text in one piece, and {gain['clean']:.3f} on "
                f"{gain['num_clean']} others; gain {gain['gain']:+.3f}, 95 % interval "
                f"{gain['low']:+.3f} to {gain['high']:+.3f}{chance}{verdict}"
            )
    return lines


def health_lines(table: dict[str, Any]) -> list[str]:
    """Signs of a sick evaluation that people should know of, a line each."""
    lines = []
    for entry in table.get("health", ()):
        told = SIGNS[entry["sign"]]
        shares = {name: count / entry["num_documents"] for name, count in entry["counts"].items()}
        if max(shares.values()) >= told.warns_from:
            shown = {name: f"{share:.0%}" for name, share in shares.items()}
            models = ", ".join(f"{n} {share}" for n, share in shown.items() if share != "0%")
            rest = ", the others 0%" if "0%" in shown.values() else ""
            lines.append(
                f"health, {entry['task']}: {told.what}: {models}{rest} "
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
