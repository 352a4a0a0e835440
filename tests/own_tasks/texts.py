"""Tasks of whole texts: how likely they are, and what is written."""

from __future__ import annotations

from own_tasks import rows
from own_tasks.task import ALL, TRAIN_TEST, TRAIN_VALIDATION, OwnTask, Row

MEASURED = ("word_perplexity", "byte_perplexity", "bits_per_byte")
MATH = ("strict-match", "flexible-extract")
OVERLAPS = ("bleu", "rouge1", "rouge2", "rougeL")
SQUAD = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1")


def _total(row: Row) -> str:
    return str(row["answer"].split()[-1])


TEXTS = {
    "lambada_openai": OwnTask(
        "log-likelihoods: perplexity over all documents",
        "lambada",
        ("EleutherAI/lambada_openai", "default"),
        ("test",),
        rows.lambada,
        ("perplexity", "acc"),
        continuous=("perplexity",),
        lesson=lambda row, other: (row["text"].rsplit(" ", 1)[0], f" {other['text'].split()[-1]}"),
    ),
    "wikitext": OwnTask(
        "loglikelihood_rolling, in windows",
        "wikitext",
        ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1"),
        ALL,
        rows.wikitext,
        MEASURED,
        continuous=MEASURED,
        max_length=96,
    ),
    "gsm8k": OwnTask(
        "generation, with examples and two filters",
        "gsm8k",
        ("openai/gsm8k", "main"),
        TRAIN_TEST,
        rows.gsm8k,
        ("exact_match",),
        MATH,
        lesson=lambda row, other: (
            f"Question: {row['question']}\nAnswer:",
            f" {other['answer']}\n\nQuestion:",
        ),
    ),
    "gsm8k_cot_self_consistency": OwnTask(
        "repeats, with maj@8 and maj@64",
        "gsm8k",
        ("openai/gsm8k", "main"),
        TRAIN_TEST,
        rows.gsm8k,
        ("exact_match",),
        ("score-first", "maj@64", "maj@8"),
        lesson=lambda row, other: (
            f"Q: {row['question']}\nA:",
            f" The answer is {_total(other)}.\n\nQ:",
        ),
        num_scored=4,
        max_length=256 + 96,
        draws=True,
    ),
    "simple_cooccurrence_bias_gen": OwnTask(
        "repeats that process_results sees all of",
        "simple_cooccurrence_bias",
        ("oskarvanderwal/simple-cooccurrence-bias", None),
        ("test",),
        rows.occupation,
        (
            "difference_male_female",
            "pct_male_preferred",
            "pct_female_preferred",
            "pct_invalid",
        ),
        ("sample_response",),
        lesson=lambda row, _: (
            row["sentence"],
            " man" if row["sentence"].endswith(" a") else " woman",
        ),
        draws=True,
    ),
    "triviaqa": OwnTask(
        "generation, with a list of right answers",
        "triviaqa",
        ("mandarjoshi/trivia_qa", "rc.nocontext"),
        TRAIN_VALIDATION,
        rows.trivia,
        ("exact_match",),
        ("remove_whitespace",),
        lesson=lambda row, other: (
            f"Question: {row['question']}?\nAnswer:",
            f" {other['answer']['value']}\n",
        ),
    ),
    "nq_open": OwnTask(
        "generation, with a description and what exact_match passes over",
        "nq_open",
        ("google-research-datasets/nq_open", None),
        TRAIN_VALIDATION,
        rows.nq_open,
        ("exact_match",),
        ("remove_whitespace",),
        lesson=lambda row, other: (f"Q: {row['question']}?\nA:", f" the {other['answer'][0]}\n"),
        num_fewshot=2,
    ),
    "drop": OwnTask(
        "process_docs and process_results are functions, of what is written",
        "drop",
        ("EleutherAI/drop", None),
        TRAIN_VALIDATION,
        rows.drop,
        ("em", "f1"),
        lesson=lambda row, other: (
            f"{row['passage']} {row['question']}",
            f" {(other['answer']['spans'] or ['a rope'])[0]}.",
        ),
    ),
    "mmlu_pro_biology": OwnTask(
        "all of its templates are functions, and others those of its examples",
        "mmlu_pro",
        ("TIGER-Lab/MMLU-Pro", None),
        ("validation", "test"),
        rows.mmlu_pro,
        ("exact_match",),
        ("custom-extract",),
        lesson=lambda row, other: (
            f"{row['question']}\nOptions:\nE. {row['options'][-1]}\n"
            "Answer: Let's think step by step.",
            f" The answer is ({other['answer']}).\n\nQuestion:",
        ),
        num_scored=5,
        max_length=2048 + 96,
    ),
    "bbh_cot_fewshot_boolean_expressions": OwnTask(
        "worked examples before up to 1,024 tokens, for which the prompt is cut",
        "bbh/cot_fewshot",
        ("SaylorTwift/bbh", "boolean_expressions"),
        ("test",),
        rows.bbh,
        ("exact_match",),
        ("get-answer",),
        lesson=lambda row, other: (
            f"Q: {row['input']}\nA: Let's think step by step.\n",
            f"So the answer is {other['target']}.\n\n",
        ),
        max_length=1024 + 96,
    ),
    "mgsm_direct_en": OwnTask(
        "generation, with a template that asks what a document has",
        "mgsm/direct",
        ("juletxara/mgsm", "en"),
        TRAIN_TEST,
        rows.mgsm,
        ("exact_match",),
        ("remove_whitespace", "flexible-extract"),
        lesson=lambda row, other: (
            f"Question: {row['question']}\nAnswer:",
            f" 1+{other['answer_number'] - 1} = {other['answer_number']}\n#### "
            f"{other['answer_number']}\n\nQuestion:",
        ),
    ),
    "wmt16-de-en": OwnTask(
        "BLEU, TER and chrF over all documents",
        "translation",
        ("wmt/wmt16", "de-en"),
        ALL,
        rows.wmt,
        ("bleu", "ter", "chrf"),
        lesson=lambda row, other: (
            f"German phrase: {row['translation']['de']}\nEnglish phrase:",
            f" {other['translation']['en']}\n",
        ),
    ),
    "truthfulqa_gen": OwnTask(
        "process_results measures what is written in twelve ways",
        "truthfulqa",
        ("truthfulqa/truthful_qa", "generation"),
        ("validation",),
        rows.truthful_text,
        tuple(f"{name}_{how}" for name in OVERLAPS for how in ("max", "acc", "diff")),
        num_scored=4,
        lesson=lambda row, other: (
            f"Q: {row['question']}\nA:",
            f" {other['correct_answers'][0]}\n\n",
        ),
    ),
    "hendrycks_math_algebra": OwnTask(
        "process_results looks for a formula",
        "hendrycks_math",
        ("EleutherAI/hendrycks_math", "algebra"),
        TRAIN_TEST,
        rows.mathematics,
        ("exact_match",),
        lesson=lambda row, other: (
            f"Problem: {row['problem']}\nAnswer:",
            f" It is $\\frac{other['solution'][-8]}5$\n\nProblem:",
        ),
    ),
    "qasper_freeform": OwnTask(
        "a metric that is a function",
        "qasper",
        ("allenai/qasper", None),
        TRAIN_VALIDATION,
        rows.qasper,
        ("f1_abstractive",),
        lesson=lambda row, other: (
            f"Q: {row['qas']['question'][0]}\n\nA:",
            f" {other['qas']['answers'][0]['answer'][0]['free_form_answer']}\n",
        ),
    ),
    "squad_completion": OwnTask(
        "a task that is a class of Python's",
        "squad_completion",
        ("hazyresearch/based-squad", "default"),
        ("validation",),
        rows.completion,
        ("contains",),
        lesson=lambda row, other: (row["text"].strip(), f" {other['value']}\n"),
    ),
    "squadv2": OwnTask(
        "a class that asks for a text and for a log-likelihood",
        "squadv2",
        ("lighteval/squad_v2", None),
        TRAIN_VALIDATION,
        rows.squad,
        (*SQUAD, "best_exact", "best_f1"),
        num_scored=5,
        lesson=lambda row, other: (
            f"Question: {row['question']}\n\nAnswer:",
            f" {(other['answers']['text'] or ['unanswerable'])[0]}\n",
        ),
    ),
}
