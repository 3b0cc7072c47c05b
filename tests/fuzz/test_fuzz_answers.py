"""Answers of a model that means harm, a million characters each: whatever reads one ends soon, with a value.

A pattern that looks for its end again from every beginning takes hours on such a text; the limit is
processor time, a hundred times what the slowest of these takes.
"""

import random
import re
import signal
from collections.abc import Callable

import pytest

from tenth.reports.scores import is_readable
from tenth.rollout import llm_judge
from tenth.tasks.answer_text import mathematical_answer, word_answer
from tenth.tasks.check_code import extract_code
from tenth.tasks.choice import read_choice
from tenth.tasks.ifeval.kinds import KINDS
from tenth.tasks.readability import ReadableLimits, faults
from tenth.tasks.rewards import language_consistency
from tenth.tasks.shape import ANY_SHAPE, R1_SHAPE, ZERO_SHAPE

LENGTH = 1_000_000
LIMIT_SECONDS = 20
LIMITS = ReadableLimits(min_language=0.9, max_repetition=0.3, max_paragraph_chars=500, max_tokens=10)
PIECES = (
    *("<answer>", "</answer>", "<think>", "</think>", "```python\n", "```\n", "1,000,", "1,", "- ", "A or "),
    *("the answer is ", "answer to ", "option A is ", "答案是", "\\boxed{", "\\a{", "\\text{a", "**", "[a]"),
    *("{", '{"a":', "[[", "...", "1. ", "e.g", "A-", "a'", "\n", "\r", " ", "\u2028", "\0", "\ud800", "İ"),
    *("ß", "e\u0301", "\ufffd", "٣", "²", "<<", "******", "SECTION 1", "####", '"', "'", "$", "(a+)+$"),
)
READERS: dict[str, Callable[[str], object]] = {
    "a choice": lambda text: read_choice(text, ["red", "green", "a" * 100]),
    "readability": lambda text: [faults(text, each, tokens=1, limits=LIMITS) for each in ("en", "zh")],
    "shapes": lambda text: [
        (shape.extract(text), shape.format_score(text)) for shape in (ZERO_SHAPE, R1_SHAPE, ANY_SHAPE)
    ],
    "a value": mathematical_answer,
    "a word": lambda text: word_answer(text, ("Yes", "No")),
    "code": extract_code,
    "a tag": is_readable,
    "a judge's scores": llm_judge._read_scores,
    "a judge's verdict": llm_judge._read_verdict,
    "languages": lambda text: language_consistency(text, "en"),
}
# Values that a file might give: absurd numbers, words that would be catastrophes as patterns.
GIVEN = {int: 10**18, str: "(a+)+$", list: ["(a+)+$", "\\", ""]}


def text_of(piece: str, *, frame: str = "{}") -> str:
    return frame.replace("{}", (piece * (LENGTH // len(piece) + 1))[:LENGTH])


def texts() -> list[str]:
    rng = random.Random(0)
    mixed = ["".join(rng.choices(PIECES, k=rng.randint(2, 4))) for _ in range(15)]
    frames = ("{}", "<think>\n{}</think>\n{}", "the answer is {}\\boxed{1}")
    return [text_of(piece, frame=rng.choice(frames)) for piece in (*PIECES, *mixed)]


@pytest.fixture
def limited():
    def too_long(signum, frame):
        raise AssertionError(f"no end after {LIMIT_SECONDS} seconds of processor time")

    def call(read: Callable[[str], object], text: str) -> object:
        signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
        try:
            return read(text)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    before = signal.signal(signal.SIGPROF, too_long)
    yield call
    signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        ("readability", "<think>\na</think>" + text_of("<answer>")),
        ("a tag", text_of("<answer>")),
        ("code", text_of("```python\n")),
        ("a value", text_of("1,000,")),
    ],
    ids=["tags", "open tags", "blocks", "groups of digits"],
)
def test_what_is_opened_a_million_times_and_never_closed_is_read_in_time(reader, text, limited):
    limited(READERS[reader], text)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_an_endless_answer_is_read_in_time(reader, limited):
    for text in texts():
        limited(READERS[reader], text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_answer_to_absurd_instructions_is_judged_in_time(kind, limited):
    values = {name: GIVEN[wanted] for name, wanted in KINDS[kind].values.items()}
    values |= {name: "at least" for name in values if name.endswith("relation")}
    for text in texts():
        assert limited(lambda text: KINDS[kind].follows(text, **values), text) in (True, False)


def test_blocks_of_code_are_the_ones_that_the_plain_pattern_finds():
    """The pattern that says what a block is, quadratic on hostile text, sets the standard."""
    plain = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", flags=re.DOTALL | re.MULTILINE)
    rng = random.Random(1)
    parts = ("```", "```python", "``", "`", " ", "\t", "x = 1", "\n", "\n", "py")
    for _ in range(3000):
        text = "".join(rng.choices(parts, k=rng.randint(1, 25)))
        found = [body for name, body in plain.findall(text) if name.strip() in ("", "py", "python")]
        code = found[-1] if found else (None if "```" in text else text)
        assert extract_code(text) == (code if code and code.strip() else None), text


@pytest.mark.parametrize(
    "scores",
    ["1" + "0" * 400, "1e999", "-1e999", "NaN", "Infinity", "true", '"5"', "[5]", "null", "0", "11"],
)
def test_scores_of_a_judge_that_are_no_points_from_1_to_10_are_no_scores(scores):
    assert llm_judge._read_scores(f'{{"a": {scores}, "b": 5}}') is None
    assert llm_judge._read_scores(f'{{"a": 5, "b": {scores}}}') is None
    assert llm_judge._read_scores('{"a": 5, "b": 1.5}') == (5.0, 1.5)
