"""Judge code by running it: functions against tests (HumanEval, MBPP), programs against inputs and outputs.

Why: the reward for code is whether it compiles and passes the tests (DeepSeek-R1, arXiv:2501.12948, section
2.2.2). It is run in a sandbox, and the judge never shares a process with it.
In:  a problem whose metadata["code"] holds its tests, and what a model wrote. Out: a Verdict; `error` when
the sandbox failed and nobody knows.
Not here: containment (sandbox/), the data sets (code_sets.py).

metadata["code"] of a function: {"prelude", "entry_point", "setup", "tests"}. The prelude goes before the
candidate's code, `setup` and `tests` are statements run by the judge. Of a program: {"inputs", "outputs"}.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from tenth.base.errors import DataError, VerifierError
from tenth.base.records import Problem, Verdict
from tenth.sandbox.limits import FunctionTests, Limits, Program, Status, TestResults
from tenth.sandbox.pool import Job, Result, SandboxPool
from tenth.tasks.answer_text import behind_thinking

TASK_PREFIX, CODE = "code/", "code"
MAX_CODE_CHARS = 1 << 18

# Two patterns, as one would look for the end again from every beginning that has none.
_BLOCK_OPENS = re.compile(r"^```([^\n`]*)\n", flags=re.MULTILINE)
_BLOCK_CLOSES = re.compile(r"^```[ \t]*$", flags=re.MULTILINE)
_PYTHON = ("python", "python3", "py", "")


def is_code(problem: Problem) -> bool:
    """Whether programs are asked for: the metadata hold tests, or the task says so."""
    return problem.task.startswith(TASK_PREFIX) or isinstance(problem.metadata.get(CODE), Mapping)


def extract_code(text: str) -> str | None:
    """The last Python block behind the thinking; all that is there where there is no block at all.

    A thought that never ends has no code, and a block that never ends is none.
    """
    behind = behind_thinking(text)
    if behind is None:
        return None
    blocks = [body for language, body in _blocks(behind) if language.strip().lower() in _PYTHON]
    if not blocks and "```" in behind:
        return None
    code = blocks[-1] if blocks else behind
    return code if code.strip() and len(code) <= MAX_CODE_CHARS else None


def write_code(code: str) -> str:
    """The block that `extract_code` reads it back from."""
    return f"```python\n{code.rstrip()}\n```"


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, body) of every block that ends."""
    start = 0
    while (opened := _BLOCK_OPENS.search(text, start)) and (
        closed := _BLOCK_CLOSES.search(text, opened.end())
    ):
        yield opened[1], text[opened.end() : closed.start()]
        start = closed.end()


def same_output(expected: str, printed: str) -> bool:
    """Equal word by word: how much space is between words, and which, does not count."""
    return expected.split() == printed.split()


class CodeChecker:
    """Judges code; owns a pool of sandboxes, started when first needed."""

    def __init__(self, *, pool: SandboxPool | None = None, limits: Limits | None = None) -> None:
        self._pool = pool or SandboxPool()
        self._limits = limits or Limits()

    def check(self, problem: Problem, answer_text: str) -> Verdict:
        """One answer. Its programs still run side by side."""
        return self.check_many([problem], [answer_text])[0]

    def check_many(self, problems: Sequence[Problem], answer_texts: Sequence[str]) -> list[Verdict]:
        """The i-th answer to the i-th problem, all at once."""
        codes = [extract_code(text) for text in answer_texts]
        groups = [
            [] if code is None else list(_jobs(problem, code, self._limits))
            for problem, code in zip(problems, codes, strict=True)
        ]
        jobs = [each for group in groups for each in group]
        # What programs print is read and let go one by one: 512 answers to ten inputs may print 10 GiB.
        passed = iter(
            self._pool.read_many(
                [job for job, _ in jobs], lambda place, result: _passed(result, expected=jobs[place][1])
            )
        )
        return [
            _verdict(code, [next(passed) for _ in group]) for code, group in zip(codes, groups, strict=True)
        ]

    def close(self) -> None:
        """End the sandboxes."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _passed(result: Result | VerifierError, *, expected: str) -> bool | VerifierError:
    """Whether a program printed what was expected, or functions passed all tests; the error stays."""
    if isinstance(result, VerifierError):
        return result
    if isinstance(result, TestResults):
        return result.is_all_passed
    return result.status is Status.OK and same_output(expected, result.stdout)


def _jobs(problem: Problem, code: str, limits: Limits) -> Iterator[tuple[Job, str]]:
    """What is to be run, each with what it has to print; tests need not print."""
    task = _task(problem)
    if task.get("tests"):
        tests = FunctionTests(
            source=task.get("prelude", "") + "\n" + code,
            setup=task.get("setup", ""),
            tests=tuple(task["tests"]),
            entry_point=task.get("entry_point"),
            limits=limits,
        )
        yield tests, ""
    for stdin, printed in zip(task.get("inputs", ()), task.get("outputs", ()), strict=True):
        yield Program(source=code, stdin=stdin, limits=limits), printed


def _task(problem: Problem) -> Mapping[str, Any]:
    task = problem.metadata.get(CODE)
    if not isinstance(task, Mapping) or not (task.get("tests") or task.get("inputs")):
        raise DataError(
            f"problem {problem.problem_id} of '{problem.task}' has no tests; put tests, or inputs and "
            "outputs, into its metadata under 'code'."
        )
    if len(task.get("inputs", ())) != len(task.get("outputs", ())):
        raise DataError(f"problem {problem.problem_id} of '{problem.task}' has an input without an output.")
    return task


def _verdict(code: str | None, passed: Sequence[bool | VerifierError]) -> Verdict:
    error = next((str(each) for each in passed if isinstance(each, VerifierError)), None)
    return Verdict(is_correct=error is None and bool(passed) and all(passed), extracted=code, error=error)
