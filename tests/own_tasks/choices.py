"""Tasks whose answers are chosen by log-likelihood."""

from __future__ import annotations

from own_tasks import rows
from own_tasks.task import ALL, TRAIN_TEST, TRAIN_VALIDATION, OwnTask

BOTH = ("acc", "acc_norm")
GLUE = "nyu-mll/glue"
SUPER_GLUE = "aps/super_glue"
INFORMATION = {
    "metric_list": [
        {"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True},
        {"metric": "brier_score", "higher_is_better": False},
    ]
}


CHOICES = {
    "arc_easy": OwnTask(
        "multiple choice, with examples drawn from another split",
        "arc",
        ("allenai/ai2_arc", "ARC-Easy"),
        ALL,
        rows.arc,
        BOTH,
        num_fewshot=2,
    ),
    "hellaswag": OwnTask(
        "process_docs is a function",
        "hellaswag",
        ("Rowan/hellaswag", None),
        TRAIN_VALIDATION,
        rows.hellaswag,
        BOTH,
    ),
    "piqa": OwnTask(
        "choices of very different length",
        "piqa",
        ("baber/piqa", None),
        TRAIN_VALIDATION,
        rows.piqa,
        BOTH,
    ),
    "winogrande": OwnTask(
        "several prompts with one continuation, with examples",
        "winogrande",
        ("allenai/winogrande", "winogrande_xl"),
        TRAIN_VALIDATION,
        rows.winogrande,
        num_fewshot=1,
    ),
    "copa": OwnTask(
        "doc_to_text, doc_to_target and doc_to_choice are functions",
        "super_glue/copa",
        (SUPER_GLUE, "copa"),
        TRAIN_VALIDATION,
        rows.copa,
    ),
    "boolq": OwnTask(
        "the same choices for all",
        "super_glue/boolq",
        (SUPER_GLUE, "boolq"),
        TRAIN_VALIDATION,
        rows.boolq,
    ),
    "cb": OwnTask(
        "an aggregation of its own over all documents",
        "super_glue/cb",
        (SUPER_GLUE, "cb"),
        TRAIN_VALIDATION,
        rows.entailment,
        ("acc", "f1"),
    ),
    "mrpc": OwnTask(
        "F1 over all documents",
        "glue/mrpc",
        (GLUE, "mrpc"),
        TRAIN_VALIDATION,
        rows.mrpc,
        ("acc", "f1"),
    ),
    "cola": OwnTask(
        "Matthews' correlation over all documents",
        "glue/cola",
        (GLUE, "cola"),
        TRAIN_VALIDATION,
        rows.cola,
        ("mcc",),
    ),
    "mnli": OwnTask(
        "doc_to_text is a function",
        "glue/mnli",
        (GLUE, "mnli"),
        ("train", "validation_matched"),
        rows.entailment,
    ),
    "truthfulqa_mc2": OwnTask(
        "process_results gives a share of the probability",
        "truthfulqa",
        ("truthfulqa/truthful_qa", "multiple_choice"),
        ("validation",),
        rows.truthful_choice,
        continuous=("acc",),
    ),
    "truthfulqa_mc1": OwnTask(
        "no examples, whatever is asked for",
        "truthfulqa",
        ("truthfulqa/truthful_qa", "multiple_choice"),
        ("validation",),
        rows.truthful_choice,
        num_fewshot=2,
    ),
    "crows_pairs_english": OwnTask(
        "prompts without text, and a mean of differences",
        "crows_pairs",
        ("jannalu/crows_pairs_multilingual", "english"),
        ("test",),
        rows.crows,
        ("likelihood_diff", "pct_stereotype"),
        continuous=("likelihood_diff",),
    ),
    "webqs": OwnTask(
        "several right choices, of which one must be greedy",
        "webqs",
        ("stanfordnlp/web_questions", None),
        TRAIN_TEST,
        rows.webqs,
        ("exact_match",),
        lesson=lambda row, other: (
            f"Question: {row['question']}\nAnswer:",
            f" {other['answers'][0]}\n",
        ),
    ),
    "blimp_adjunct_island": OwnTask(
        "prompts without text",
        "blimp",
        ("nyu-mll/blimp", "adjunct_island"),
        ("train",),
        rows.blimp,
    ),
    "mmlu_astronomy": OwnTask(
        "a description, and the first examples of a split",
        "mmlu/default",
        ("cais/mmlu", "astronomy"),
        ("dev", "test"),
        rows.mmlu,
        num_fewshot=2,
    ),
    "race": OwnTask(
        "prompts that are longer than what the model reads",
        "race",
        ("EleutherAI/race", "high"),
        ("test",),
        rows.race,
        max_length=96,
    ),
    "toxigen": OwnTask(
        "doc_to_target gives a number of numpy's",
        "toxigen",
        ("skg/toxigen-data", "annotated"),
        TRAIN_TEST,
        rows.toxigen,
        BOTH,
    ),
    "openbookqa_information": OwnTask(
        "acc_mutual_info and brier_score",
        "openbookqa",
        ("allenai/openbookqa", "main"),
        ALL,
        rows.openbook,
        ("acc_mutual_info", "brier_score"),
        continuous=("brier_score",),
        included=("openbookqa.yaml", INFORMATION),
    ),
}
