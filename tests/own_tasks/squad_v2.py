"""Stands where `evaluate` looks for the metric of squadv2, which it would download.

It takes and gives what the real one does, and compares words more simply: lm-eval and we both
call it, so what is compared is what reaches it.
"""

from __future__ import annotations

from collections import Counter

import datasets
import evaluate


class SquadV2(evaluate.Metric):
    """Exact matches and F1, of all questions, and of those with and without an answer."""

    def _info(self) -> evaluate.MetricInfo:
        spans = {"text": datasets.Value("string"), "answer_start": datasets.Value("int32")}
        features = {
            "predictions": {
                "id": datasets.Value("string"),
                "prediction_text": datasets.Value("string"),
                "no_answer_probability": datasets.Value("float32"),
            },
            "references": {"id": datasets.Value("string"), "answers": datasets.Sequence(spans)},
        }
        return evaluate.MetricInfo(
            description="", citation="", features=datasets.Features(features)
        )

    def _compute(self, predictions, references):
        pairs = [
            (prediction, reference["answers"]["text"])
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        found = {}
        for name, compare in (("exact", _exact), ("f1", _f1)):
            values = [
                max(compare(one["prediction_text"], text) for text in texts or [""])
                for one, texts in pairs
            ]
            found[name] = _percent(values)
            for prefix, wanted in (("HasAns", True), ("NoAns", False)):
                chosen = [
                    v for v, (_, texts) in zip(values, pairs, strict=True) if bool(texts) is wanted
                ]
                if chosen:
                    found[f"{prefix}_{name}"] = _percent(chosen)
            # Nothing is answered where the chance of no answer is above a threshold.
            chances = [one["no_answer_probability"] for one, _ in pairs]
            found[f"best_{name}"] = max(
                _percent(
                    [
                        v if c <= t else float(not texts)
                        for v, c, (_, texts) in zip(values, chances, pairs, strict=True)
                    ]
                )
                for t in [-1.0, *chances]
            )
        return found


def _percent(values: list[float]) -> float:
    return 100.0 * sum(values) / len(values)


def _exact(ours: str, theirs: str) -> float:
    return float(ours.lower().split() == theirs.lower().split())


def _f1(ours: str, theirs: str) -> float:
    first, second = ours.lower().split(), theirs.lower().split()
    common = sum((Counter(first) & Counter(second)).values())
    return 2.0 * common / max(1, len(first) + len(second)) if first or second else 1.0
