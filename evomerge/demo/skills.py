"""The skills that the demo models learn: lines of text, their prompts, answers and distractors.

A line is a prompt that ends in "=", its answer and a newline: ">hbd=bdh" (sort the letters),
"<hbd=dbh" (reverse them), "#1203=千二百三" (a number in kanji numerals). Each skill knows two
distributions of prompts: `core` lengths, which the base is trained on, and `full` lengths, which
the skill's expert is trained on and the tasks are drawn from. They overlap, so the base solves a
fixed share of every task and has never seen the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from random import Random

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
KANJI_DIGITS = "一二三四五六七八九"
KANJI_UNITS = "十百千万"
MARKS = "><#=\n"
CHARACTERS = MARKS + DIGITS + LETTERS + KANJI_DIGITS + KANJI_UNITS

NUM_DISTRACTORS = 3
MAX_TRIES = 1000


@dataclass(frozen=True)
class Line:
    """One solved problem.

    Attributes:
        prompt: The text up to and including "=".
        answer: What follows it, without the newline.
    """

    prompt: str
    answer: str


@dataclass(frozen=True)
class Skill(ABC):
    """A family of problems.

    Attributes:
        name: The skill's name, which is also its expert's.
        core: Lengths in characters of the problems that the base is trained on, equally likely.
        full: Lengths of the problems of the expert's training text and of the task, likewise.
    """

    name: str
    core: tuple[int, ...]
    full: tuple[int, ...]

    @abstractmethod
    def line(self, length: int, rng: Random) -> Line:
        """A random problem of `length` characters and its answer."""

    @abstractmethod
    def corrupt(self, answer: str, rng: Random) -> str:
        """A small random change of an answer, of the same length; it may change nothing."""

    def core_line(self, rng: Random) -> Line:
        """A random line of the lengths that the base is trained on."""
        return self.line(rng.choice(self.core), rng)

    def full_line(self, rng: Random) -> Line:
        """A random line of the lengths that the expert is trained on."""
        return self.line(rng.choice(self.full), rng)

    def distractors(self, answer: str, rng: Random) -> tuple[str, ...] | None:
        """Distinct wrong answers, each one small change away from `answer`.

        Returns:
            `NUM_DISTRACTORS` strings, or None if the answer does not have that many corruptions.
        """
        found: dict[str, None] = {}
        for _ in range(MAX_TRIES):
            if len(found) == NUM_DISTRACTORS:
                return tuple(found)
            wrong = self.corrupt(answer, rng)
            if wrong != answer:
                found[wrong] = None
        return None


class Sort(Skill):
    """Distinct letters, put into alphabetical order."""

    def line(self, length: int, rng: Random) -> Line:
        """A random problem of `length` distinct letters."""
        letters = rng.sample(LETTERS, length)
        return Line(f">{''.join(letters)}=", "".join(sorted(letters)))

    def corrupt(self, answer: str, rng: Random) -> str:
        """Swap two neighbors."""
        return _swap_neighbors(answer, rng)


class Reverse(Skill):
    """Letters, read backward."""

    def line(self, length: int, rng: Random) -> Line:
        """A random problem of `length` letters, repeats allowed."""
        text = "".join(rng.choices(LETTERS, k=length))
        return Line(f"<{text}=", text[::-1])

    def corrupt(self, answer: str, rng: Random) -> str:
        """Swap two neighbors."""
        return _swap_neighbors(answer, rng)


class Numeral(Skill):
    """A number in digits, written in kanji numerals."""

    def line(self, length: int, rng: Random) -> Line:
        """A random number of `length` digits."""
        number = rng.randrange(10 ** (length - 1), 10**length)
        return Line(f"#{number}=", to_kanji(number))

    def corrupt(self, answer: str, rng: Random) -> str:
        """Replace one digit by another."""
        places = [place for place, character in enumerate(answer) if character in KANJI_DIGITS]
        if not places:
            return answer
        place = rng.choice(places)
        return answer[:place] + rng.choice(KANJI_DIGITS) + answer[place + 1 :]


def to_kanji(number: int) -> str:
    """A number from 1 to 99,999 in kanji numerals, for example 千二百三 for 1203."""
    parts: list[str] = []
    for unit, sign in ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // unit % 10
        if digit == 0:
            continue
        # One is silent before 十, 百 and 千, and spoken before 万 and at the end.
        silent = digit == 1 and unit in (10, 100, 1000)
        parts.append(("" if silent else KANJI_DIGITS[digit - 1]) + sign)
    return "".join(parts)


def _swap_neighbors(text: str, rng: Random) -> str:
    place = rng.randrange(len(text) - 1)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


SORT = Sort("sort", core=(3, 4, 5), full=(5, 6, 7, 8))
REVERSE = Reverse("reverse", core=(3, 4, 5), full=(4, 5, 6, 7))
NUMERAL = Numeral("numeral", core=(3, 4), full=(4, 5))
SKILLS: tuple[Skill, ...] = (SORT, REVERSE, NUMERAL)
