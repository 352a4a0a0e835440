"""Rows of data sets, in the schema that each has on the Hugging Face hub, made from their number.

Fields that no task reads are left out.
"""

from __future__ import annotations

import random
from itertools import product

from own_tasks.task import Row

WHO = ("the cat", "a farmer", "my sister", "the teacher", "an old man", "the pilot")
DOES = ("sees", "paints", "carries", "sells", "finds")
WHAT = ("a red boat", "the green door", "two apples", "a small clock", "a rope", "seven stones")
FACTS = list(product(WHO, DOES, WHAT))
random.Random(0).shuffle(FACTS)


def fact(number: int) -> tuple[str, str, str]:
    """Who does what to which thing."""
    return FACTS[number % len(FACTS)]


def line(number: int) -> str:
    """A fact as a sentence."""
    who, does, what = fact(number)
    return f"{who[0].upper()}{who[1:]} {does} {what}."


def asked(number: int) -> str:
    """A question about a fact's thing."""
    who, does, _ = fact(number)
    return f"what is it that {who} {does} on day {number}"


def things(number: int, count: int) -> list[str]:
    """Different things, the fact's own first."""
    what = fact(number)[2]
    return [what, *[other for other in WHAT if other != what]][:count]


def pick(number: int, count: int) -> int:
    """A label that follows from nothing."""
    return random.Random(f"pick {number}").randrange(count)


def small(number: int) -> int:
    """A number that is another for an odd row than for the one before."""
    return 2 + number // 2 % 2 + number % 2


def choices(number: int) -> Row:
    """Choices as several data sets have them."""
    return {"text": things(number, 4), "label": list("ABCD")}


def arc(number: int) -> Row:
    answer = "ABCD"[pick(number, 4)]
    return {"question": f"{asked(number)}?", "choices": choices(number), "answerKey": answer}


def hellaswag(number: int) -> Row:
    return {
        "activity_label": "Making [header] things",
        "ctx_a": line(number),
        "ctx_b": "then she",
        "endings": [f"takes {thing}. [title] It is hers." for thing in things(number, 4)],
        "label": str(pick(number, 4)),
    }


def piqa(number: int) -> Row:
    first, second = things(number, 2)
    return {
        "goal": f"To do what {fact(number)[0]} does on day {number},",
        "sol1": f"take {first} and go.",
        "sol2": f"look at {second}.",
        "label": pick(number, 2),
    }


def winogrande(number: int) -> Row:
    return {
        "sentence": f"{line(number)} Then _ was glad of it on day {number}.",
        "option1": WHO[number % 3],
        "option2": WHO[3 + number % 3],
        "answer": str(1 + pick(number, 2)),
    }


def copa(number: int) -> Row:
    return {
        "premise": f"On day {number} {fact(number)[0]} was late.",
        "choice1": line(number + 1),
        "choice2": line(number + 2),
        "question": ("cause", "effect")[number % 2],
        "label": pick(number, 2),
    }


def boolq(number: int) -> Row:
    return {"passage": line(number), "question": asked(number), "label": pick(number, 2)}


def entailment(number: int) -> Row:
    return {"premise": line(number), "hypothesis": line(number + 3), "label": pick(number, 3)}


def mrpc(number: int) -> Row:
    return {"sentence1": line(number), "sentence2": line(number + 5), "label": pick(number + 30, 2)}


def cola(number: int) -> Row:
    return {"sentence": line(number), "label": pick(number, 2)}


def truthful_choice(number: int) -> Row:
    count = 3 + number % 3
    targets = {"choices": things(number, count), "labels": [1, 1, 0, 0, 0][:count]}
    return {"question": f"{asked(number)}?", "mc1_targets": targets, "mc2_targets": targets}


def crows(number: int) -> Row:
    return {"sent_more": line(number), "sent_less": line(number + 9), "bias_type": "age"}


def webqs(number: int) -> Row:
    return {"question": f"{asked(number)}?", "answers": things(number, 1 + number % 3)}


def blimp(number: int) -> Row:
    who, does, what = fact(number)
    return {"sentence_good": f"Who {does} {what}?", "sentence_bad": f"Who {does} {who}?"}


def mmlu(number: int) -> Row:
    question = f" {asked(number)}?"
    return {"question": question, "choices": things(number, 4), "answer": pick(number, 4)}


def mmlu_pro(number: int) -> Row:
    letter = "ABCDEF"[small(number)]
    return {
        "question": f"{asked(number)}?",
        "options": things(number, 6),
        "answer": letter,
        "cot_content": f"A: Let's think step by step. {line(number)} The answer is ({letter}).",
        "category": "law" if number % 5 == 4 else "biology",
    }


def race(number: int) -> Row:
    problems = [
        {
            "question": f"{fact(number)[0]} has   _  ." if first else f"{asked(number)}?",
            "options": things(number + first, 4),
            "answer": "ABCD"[pick(number + first, 4)],
        }
        for first in (1, 0)
    ]
    article = " ".join(line(number + step) for step in range(20))
    return {"article": article, "problems": str(problems)}


def openbook(number: int) -> Row:
    answer = f" {'ABCD'[pick(number, 4)]}"
    return {"question_stem": line(number)[:-1], "choices": choices(number), "answerKey": answer}


def toxigen(number: int) -> Row:
    return {"text": line(number), "toxicity_ai": 2.0, "toxicity_human": 1.0 + 4.0 * pick(number, 2)}


def lambada(number: int) -> Row:
    return {"text": f"{line(number)} {line(number + 1)}"[:-1]}


def wikitext(number: int) -> Row:
    text = " ".join(line(number + step) for step in range(2 + 5 * number)).replace(".", " .")
    return {"page": f" = Day {number} = \n \n {text} 1 @,@ 000 of it . \n"}


def gsm8k(number: int) -> Row:
    total = small(number)
    question = f"On day {number} {fact(number)[0]} has 1 and gets {total - 1}. How many?"
    return {"question": question, "answer": f"1+{total - 1} = {total}\n#### {total}"}


def trivia(number: int) -> Row:
    what = fact(number)[2]
    return {"question": asked(number), "answer": {"aliases": [what.title(), what], "value": what}}


def nq_open(number: int) -> Row:
    what = fact(number)[2]
    return {"question": asked(number), "answer": [what.split(" ", 1)[1], f"{what} there"]}


def drop(number: int) -> Row:
    what = fact(number)[2]
    first, *others = [str(number), what] if number % 4 == 0 else [what, f"{what} and more"]
    return {
        "query_id": f"query {number}",
        "passage": line(number),
        "question": f"{asked(number)}?",
        "answer": _dropped(first),
        "validated_answers": {
            key: [_dropped(other)[key] for other in others] for key in ("number", "date", "spans")
        },
    }


def _dropped(text: str) -> Row:
    number = text if text.isdigit() else ""
    date = {"day": "", "month": "", "year": ""}
    return {"number": number, "date": date, "spans": [] if number else [text]}


def bbh(number: int) -> Row:
    terms = [("not " if number >> bit & 1 else "") + "True" for bit in range(4)]
    return {"input": f"{' and '.join(terms)} is", "target": str(number % 4 in (0, 3))}


def mgsm(number: int) -> Row:
    row = gsm8k(number)
    return {
        "question": row["question"],
        "answer": None,
        "answer_number": int(row["answer"].split()[-1]),
    }


def wmt(number: int) -> Row:
    return {"translation": {"de": line(number).replace("the", "der"), "en": line(number)}}


def truthful_text(number: int) -> Row:
    return {
        "question": f" {asked(number)}?",
        "correct_answers": [line(number), fact(number)[2]],
        "incorrect_answers": [line(number + 7), f"{fact(number + 7)[2]} "],
    }


def mathematics(number: int) -> Row:
    value = small(number)
    problem = f"Day {number}: what is $1 + {value - 1}$?"
    return {"problem": problem, "solution": f"It is $\\boxed{{\\frac{{{value}}}{{5}}}}$."}


def qasper(number: int) -> Row:
    found = [(line(number)[:-1], None), ("", True)]
    answers = [
        {
            "unanswerable": False,
            "extractive_spans": [],
            "yes_no": yes_no,
            "free_form_answer": text,
        }
        for text, yes_no in found
    ]
    return {
        "title": f"Day {number}",
        "abstract": line(number + 1),
        "qas": {
            "question": [f"{asked(number)}?", "Is it so?"],
            "answers": [{"answer": [answer]} for answer in answers],
        },
    }


def occupation(number: int) -> Row:
    article = ("a", "the")[number % 2]
    return {"sentence": f"On day {number} {fact(number)[0]} was {article}"}


def completion(number: int) -> Row:
    first, last = fact(number)[2].rsplit(" ", 1)
    return {"text": f"{line(number)} On day {number} it was {first} ", "value": last}


def squad(number: int) -> Row:
    spans = [fact(number)[2]] if number % 4 else []
    return {
        "id": f"id {number}",
        "title": f"Day {number}",
        "context": line(number),
        "question": f"{asked(number)}?",
        "answers": {"text": spans, "answer_start": [3 for _ in spans]},
    }
