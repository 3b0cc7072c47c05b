"""One function per published format: a row of the file becomes a `Problem`.

In:  a row as its authors wrote it, and the suite's name.  Out: a Problem whose `task` is the suite.
A RowError says which column is wrong.
Not here: files (suite.py), how a question asks for the form of its answer (asking.py).
"""

from fractions import Fraction

from tenth.base.records import Problem
from tenth.tasks.answer_text import last_boxed
from tenth.tasks.check_math import plain_number
from tenth.tasks.choice import CHOICES, LETTERS, show_options
from tenth.tasks.ifeval.check import problem_with_instructions
from tenth.tasks.suites.suite import Row, RowError, index_of, number_of, text_of, texts_of
from tenth.tasks.task import problem

WORDS = "words"
_MAX_DENOMINATOR = 1000
_MATH_LEVELS = ("1", "2", "3", "4", "5")


def gsm8k(row: Row, suite: str) -> Problem:
    """GSM8K (Cobbe et al., arXiv:2110.14168): the answer stands behind ####."""
    solution, mark, answer = text_of(row, "answer").rpartition("####")
    if not mark or plain_number(answer.strip()) is None:
        raise RowError(f"'answer' ends with {answer.strip()[:40]!r}, where #### and a number belong")
    return problem(
        suite,
        text_of(row, "question"),
        answer.strip().replace(",", ""),
        metadata={"solution": solution.strip()},
    )


def math(row: Row, suite: str) -> Problem:
    """MATH (Hendrycks et al., arXiv:2103.03874): the answer stands in the solution's last box."""
    solution = text_of(row, "solution")
    answer = last_boxed(solution)
    if answer is None:
        raise RowError("'solution' has no \\boxed answer")
    level = str(row.get("level", "")).removeprefix("Level ")
    return problem(
        suite,
        text_of(row, "problem"),
        answer.strip(),
        level=int(level) if level in _MATH_LEVELS else 0,
        metadata={"type": row.get("type")},
    )


def svamp(row: Row, suite: str) -> Problem:
    """SVAMP (Patel et al., arXiv:2103.07191)."""
    return problem(suite, f"{text_of(row, 'Body')} {text_of(row, 'Question')}", number_of(row, "Answer"))


def input_and_number(row: Row, suite: str) -> Problem:
    """MAWPS (Koncel-Kedziorski et al., 2016) and MultiArith (Roy and Roth, 2015): `input`, `target`.

    0.3333333333 stands for 1/3, and neither 0.33 nor 0.333 may be asked to be those ten digits.
    """
    written = number_of(row, "target")
    value = Fraction(written)
    simple = value.limit_denominator(_MAX_DENOMINATOR)
    is_cut = len(written.partition(".")[2]) >= 9 and abs(simple - value) < Fraction(1, 10**8)
    return problem(suite, text_of(row, "input"), str(simple) if is_cut else written)


def cmath(row: Row, suite: str) -> Problem:
    """CMATH (Wei et al., arXiv:2306.16636): Chinese primary school, `grade` 1 to 6."""
    grade = row.get("grade")
    return problem(
        suite,
        text_of(row, "question"),
        text_of(row, "answer").strip(),
        level=grade if isinstance(grade, int) else 0,
        language="zh",
    )


def aqua(row: Row, suite: str) -> Problem:
    """AQuA-RAT (Ling et al., arXiv:1705.04146): options are written "A)..."."""
    options = [_without_letter(option) for option in texts_of(row, "options")]
    return _choice(suite, text_of(row, "question"), options, text_of(row, "correct").strip())


def mmlu(row: Row, suite: str) -> Problem:
    """MMLU (Hendrycks et al., arXiv:2009.03300)."""
    return _choice(
        suite,
        text_of(row, "question"),
        texts_of(row, "choices"),
        text_of(row, "answer").strip(),
        subject=str(row.get("subject") or ""),
    )


def query_and_choices(row: Row, suite: str) -> Problem:
    """ARC-easy (Clark et al., arXiv:1803.05457) as it is kept for likelihoods; here asked with letters."""
    options = texts_of(row, "choices")
    question = text_of(row, "query").removeprefix("Question:").strip()
    return _choice(suite, question, options, LETTERS[index_of(row, "gold", among=options)])


def copa(row: Row, suite: str) -> Problem:
    """COPA (Roemmele et al., 2011): which of two goes on."""
    options = texts_of(row, "choices")
    question = f"Which of these goes on plausibly?\n{text_of(row, 'query')} ..."
    return _choice(suite, question, options, LETTERS[index_of(row, "gold", among=options)])


def by_likelihood(row: Row, suite: str) -> Problem:
    """`query`, `choices`, `gold` as texts that are continued: ARC-easy and COPA for base models."""
    options = texts_of(row, "choices")
    gold = index_of(row, "gold", among=options)
    query = text_of(row, "query")
    cue = f"{query}\nAnswer:" if query.startswith("Question:") else query
    return problem(suite, cue, LETTERS[gold], metadata={CHOICES: options})


def bbh(row: Row, suite: str) -> Problem:
    """BIG-bench Hard (Suzgun et al., arXiv:2210.09261): `input`, `target`."""
    answer = text_of(row, "target").strip()
    pairs = (("True", "False"), ("Yes", "No"), ("yes", "no"), ("valid", "invalid"))
    words = next((pair for pair in pairs if answer in pair), None)
    if words is None and plain_number(answer) is None:
        raise RowError(f"'target' is {answer[:40]!r}, where a number or one of True, False, Yes, No belongs")
    metadata = {WORDS: list(words)} if words else {}
    return problem(suite, text_of(row, "input"), answer, metadata=metadata)


def ifeval(row: Row, suite: str) -> Problem:
    """IFEval (Zhou et al., arXiv:2311.07911): the instructions travel in the metadata."""
    wrong = problem_with_instructions(row)
    if wrong is not None:
        raise RowError(wrong[:300])
    metadata = {name: row[name] for name in ("instruction_id_list", "kwargs")}
    return problem(suite, text_of(row, "prompt"), "", metadata=metadata)


def lambada(row: Row, suite: str) -> Problem:
    """LAMBADA (Paperno et al., arXiv:1606.06031): the last word of a passage."""
    return problem(suite, text_of(row, "context"), text_of(row, "continuation").strip())


def _choice(suite: str, question: str, options: list[str], letter: str, *, subject: str = "") -> Problem:
    if letter not in LETTERS[: len(options)] or len(letter) != 1:
        raise RowError(
            f"the answer is {letter[:40]!r}, where a letter up to {LETTERS[len(options) - 1]} belongs"
        )
    metadata = {CHOICES: options} | ({"subject": subject} if subject else {})
    return problem(suite, f"{question.strip()}\n{show_options(options)}", letter, metadata=metadata)


def _without_letter(option: str) -> str:
    is_lettered = len(option) > 1 and option[0] in LETTERS and option[1] in ").:"
    return option[2:].strip() if is_lettered else option.strip()
