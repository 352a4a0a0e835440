"""Faults planted in the code, and which of them a test suite catches.

    planted_faults.py draw --seed 1 --count 60 --json faults.json
    planted_faults.py map --tests tests --data old.coverage
    planted_faults.py run faults.json --tests tests --data old.coverage --json old.json
    planted_faults.py compare old.json new.json

A fault is one change of one place: another operator, a constant beside it, a condition turned
around, a statement left out. They are drawn by seed, at least one in each room. Each is planted in
a copy of the checkout; then the tests that reach its line are run (`map` finds them by coverage),
those of the same room first, until one fails. A line that runs when it is imported, or in another
process, is reached by no test: the tests of its room are run.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

from harness import print_table

ROOT = Path(__file__).parents[1]
START_S = 90
"""Seconds that tests may need beside their own."""
SLOWER = 4
"""How much longer than when they were mapped tests may take before they count as hanging."""

FIRST_TESTS = 40
"""Tests that are run at once before all others that reach the line."""

NOT_EXECUTED = ("annotation", "bases", "decorator_list", "keywords", "returns", "type_params")

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
}


@dataclass(frozen=True)
class Fault:
    """A change of one place.

    Attributes:
        path: The file, from the checkout's root.
        line: Where it begins, from 1.
        start: Its first character in the file.
        end: The character behind its last one.
        new: What stands there in its place.
        what: What is changed, for people.
    """

    path: str
    line: int
    start: int
    end: int
    new: str
    what: str

    @property
    def room(self) -> str:
        """The folder of the package, or the module, that it is in."""
        parts = Path(self.path).parts
        return parts[0] if len(parts) < 3 and parts[0] != "evomerge" else parts[1]

    @property
    def key(self) -> str:
        """What tells it from every other fault."""
        return f"{self.path}:{self.start}:{self.new}"

    def planted(self, text: str) -> str:
        """The file's text with the fault."""
        return text[: self.start] + self.new + text[self.end :]


def faults_of(path: Path) -> Iterator[Fault]:
    """Every fault that can be planted in a file."""
    text = path.read_text(encoding="utf-8")
    begins = [0]
    for line in text.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    lines = text.splitlines()

    def place(line: int, column: int) -> int:
        # Columns count bytes.
        return begins[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def fault(node: ast.expr | ast.stmt, new: ast.AST | str, what: str) -> Fault:
        assert node.end_lineno is not None and node.end_col_offset is not None
        source = new if isinstance(new, str) else f"({ast.unparse(new)})"
        return Fault(
            str(path.relative_to(ROOT)),
            node.lineno,
            place(node.lineno, node.col_offset),
            place(node.end_lineno, node.end_col_offset),
            source,
            what,
        )

    tree = ast.parse(text)
    for node in _executed(tree):
        yield from (fault(node, new, what) for new, what in _changes(node))


def _executed(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Expressions and statements that do something: no annotations, docstrings, settings."""
    for field, value in ast.iter_fields(tree):
        is_argument = field == "keywords" and isinstance(tree, ast.Call)
        if field in NOT_EXECUTED and not is_argument:
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.expr | ast.stmt):
                yield node
            if not isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
                yield from _executed(node)


def _changes(node: ast.expr | ast.stmt) -> Iterator[tuple[ast.AST | str, str]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
        changed = COMPARED[type(node.ops[0])]()
        yield ast.Compare(node.left, [changed], node.comparators), "comparison"
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
        yield ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right), "operator"
    elif isinstance(node, ast.BoolOp):
        op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield ast.BoolOp(op, node.values), "and, or"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand, "not"
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body), "condition"
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value), "constant"
        elif isinstance(node.value, int | float):
            yield ast.Constant(node.value + 1), "constant"
    elif isinstance(node, ast.Raise):
        yield "pass", "line left out"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if not ast.unparse(node.value.func).startswith(("logger.", "print")):
            yield "pass", "line left out"
    elif isinstance(node, ast.AugAssign | ast.Delete):
        yield "pass", "line left out"


def draw(seed: int, count: int) -> list[Fault]:
    """Faults drawn by seed: one in each room, the others anywhere, no two on a line."""
    rng = random.Random(seed)
    files = sorted(
        path for folder in ("evomerge", "flows") for path in (ROOT / folder).rglob("*.py")
    )
    by_room: dict[str, list[Fault]] = defaultdict(list)
    for path in files:
        for fault in faults_of(path):
            by_room[fault.room].append(fault)
    chosen = [rng.choice(by_room[room]) for room in sorted(by_room)]
    rest = [fault for room in sorted(by_room) for fault in by_room[room]]
    while len(chosen) < count:
        fault = rng.choice(rest)
        if all((fault.path, fault.line) != (other.path, other.line) for other in chosen):
            chosen.append(fault)
    return chosen


def map_tests(tests: str, data: Path) -> None:
    """Run a suite once and write down which test reaches which line."""
    arguments = ["-q", "-m", "not long", "-p", "no:cacheprovider", "--cov=evomerge", "--cov=flows"]
    arguments += ["--cov-context=test", "--cov-report=", "-n", "2", "--dist", "loadfile"]
    arguments += [f"--junitxml={_durations_path(data).resolve()}", tests]
    subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        env=_environment(ROOT) | {"COVERAGE_FILE": str(data.resolve())},
        check=False,
    )


def _durations_path(data: Path) -> Path:
    return data.with_suffix(".xml")


def durations_of(data: Path) -> dict[str, float]:
    """Seconds of each test file when it was mapped."""
    seconds: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(_durations_path(data)).iter("testcase"):
        module = case.attrib["classname"].split(".Test")[0].replace(".", "/") + ".py"
        seconds[module] += float(case.attrib["time"])
    return seconds


def tests_of(fault: Fault, data: Path, tests: str) -> list[str]:
    """Tests that reach the statement of a fault, those of its room first."""
    from coverage import CoverageData

    coverage = CoverageData(str(data))
    coverage.read()
    contexts = coverage.contexts_by_lineno(str(ROOT / fault.path))
    names = sorted(
        {
            context.partition("|")[0]
            for line in _statement(ROOT / fault.path, fault.line)
            for context in contexts.get(line, [])
            if context
        }
    )
    if not names:
        room = ROOT / tests / fault.room
        module = ROOT / tests / f"test_{Path(fault.path).stem}.py"
        names = [str(path.relative_to(ROOT)) for path in (room, module) if path.exists()]
    return sorted(names, key=lambda name: (f"/{fault.room}/" not in name, "end_to_end" in name))


def _statement(path: Path, line: int) -> range:
    """The lines of the smallest statement that a line is in, up to its body."""
    lines = range(line, line + 1)
    size: float = math.inf
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.stmt) and node.end_lineno is not None:
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if isinstance(body, list) else node.end_lineno
            if node.lineno <= line <= end and end - node.lineno < size:
                lines, size = range(node.lineno, end + 1), end - node.lineno
    return lines


def is_caught(
    fault: Fault, tests: list[str], suite: str, durations: dict[str, float]
) -> tuple[bool, str, float]:
    """Whether a test fails with the fault, which one, and the seconds that it took."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "checkout"
        # Compiled loops are copied with what they were compiled from, if that stays as it is.
        left_out = ["__pycache__"] if fault.room == "kernels" else ["*.pyc"]
        wanted = ["evomerge", "flows", "configs", "benchmarks", "docs", suite, "pyproject.toml"]
        for entry in (*dict.fromkeys(wanted), "README.md", "prefect.yaml", "Makefile"):
            source = ROOT / entry
            if source.is_dir():
                shutil.copytree(source, copy / entry, ignore=shutil.ignore_patterns(*left_out))
            else:
                copy.mkdir(exist_ok=True)
                shutil.copy(source, copy / entry)
        path = copy / fault.path
        path.write_text(fault.planted(path.read_text(encoding="utf-8")), encoding="utf-8")
        for batch in (tests[:FIRST_TESTS], tests[FIRST_TESTS:]):
            if not batch:
                continue
            files = {test.partition("::")[0] for test in batch}
            # A name is a file's, or a folder's.
            mapped = [s for path, s in durations.items() if path.startswith(tuple(files))]
            limit = START_S + SLOWER * sum(mapped)
            arguments = ["-q", "-x", "-m", "not long", "-p", "no:cacheprovider", *batch]
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "pytest", *arguments],
                    cwd=copy,
                    env=_environment(copy),
                    capture_output=True,
                    text=True,
                    timeout=limit,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return True, "time", time.monotonic() - began
            if done.returncode:
                failed = [
                    line
                    for line in done.stdout.splitlines()
                    if line.startswith(("FAILED", "ERROR"))
                ]
                return True, (failed or ["an error"])[0], time.monotonic() - began
    return False, "", time.monotonic() - began


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}


def run(faults: list[Fault], tests: str, data: Path, out_path: Path, jobs: int) -> None:
    """Plant each fault in a checkout of its own; what is known already is kept."""
    known = json.loads(out_path.read_text()) if out_path.exists() else {}
    durations = durations_of(data)

    def try_one(fault: Fault) -> tuple[Fault, int, bool, str, float]:
        reaching = tests_of(fault, data, tests)
        if not reaching:
            return fault, 0, False, "", 0.0
        return fault, len(reaching), *is_caught(fault, reaching, tests, durations)

    left = [fault for fault in faults if fault.key not in known]
    with ThreadPoolExecutor(jobs) as pool:
        done = as_completed([pool.submit(try_one, fault) for fault in left])
        for number, future in enumerate(done, len(faults) - len(left) + 1):
            fault, count, caught, by, took = future.result()
            known[fault.key] = {**asdict(fault), "caught": caught, "by": by, "tests": count}
            out_path.write_text(json.dumps(known, indent=1) + "\n")
            verdict = f"caught by {by}" if caught else "not caught"
            print(
                f"{number}/{len(faults)} {fault.path}:{fault.line} ({fault.what}): {verdict}, "
                f"{count} tests, {took:.0f} s",
                flush=True,
            )


def compare(old_path: Path, new_path: Path) -> int:
    """Print what two suites catch; the number of faults that only the old one does."""
    old, new = (json.loads(path.read_text()) for path in (old_path, new_path))
    lost = [key for key in old if old[key]["caught"] and not new[key]["caught"]]
    won = [key for key in old if new[key]["caught"] and not old[key]["caught"]]
    counts = [sum(entry["caught"] for entry in suite.values()) for suite in (old, new)]
    print_table(
        "planted faults",
        ["suite", "faults", "caught"],
        [
            [n, str(len(s)), str(c)]
            for n, s, c in zip(("old", "new"), (old, new), counts, strict=True)
        ],
    )
    for what, keys in (("only the old one catches", lost), ("only the new one catches", won)):
        for key in keys:
            print(f"{what}: {old[key]['path']}:{old[key]['line']} ({old[key]['what']})")
    return len(lost)


def main() -> int:
    """Draw, map, run or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drawn = commands.add_parser("draw")
    drawn.add_argument("--seed", type=int, default=1)
    drawn.add_argument("--count", type=int, default=60)
    drawn.add_argument("--json", type=Path, required=True)
    for name in ("map", "run"):
        command = commands.add_parser(name)
        if name == "run":
            command.add_argument("faults", type=Path)
            command.add_argument("--json", type=Path, required=True)
            command.add_argument("--jobs", type=int, default=2, help="faults at a time")
        command.add_argument("--tests", default="tests")
        command.add_argument("--data", type=Path, required=True)
    compared = commands.add_parser("compare")
    compared.add_argument("old", type=Path)
    compared.add_argument("new", type=Path)
    given = parser.parse_args()
    if given.command == "draw":
        faults = [asdict(fault) for fault in draw(given.seed, given.count)]
        given.json.write_text(json.dumps(faults, indent=1) + "\n")
    elif given.command == "map":
        map_tests(given.tests, given.data)
    elif given.command == "run":
        faults = [Fault(**entry) for entry in json.loads(given.faults.read_text())]
        run(faults, given.tests, given.data, given.json, given.jobs)
    else:
        return min(compare(given.old, given.new), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
