"""Programs and replies under instructions on their way through the cold start and rejection sampling."""

import json
import random

import pytest
from sample_fakes import TalkingPool, make_tokenizer, zero

from tenth.base.errors import SandboxUnavailable
from tenth.base.files import read_lines
from tenth.pipeline.cold_start import build_cold_start, rewrite_by_template
from tenth.pipeline.r1_recipe import ColdStartSection, RejectionSection
from tenth.pipeline.rejection import build_rejection_set
from tenth.sandbox.pool import find_tier
from tenth.tasks.file_family import FileFamily
from tenth.tasks.judge import Judge, answer_of
from tenth.tasks.shape import R1_SHAPE
from tenth.tokenizer.chat import Answer, Template

TOKENIZER = make_tokenizer()
DOUBLE = {
    "prompt": "Double it.",
    "answer": "double = lambda x: 2 * x",
    "code": {"entry_point": "double", "tests": ["assert double(2) == 4", "assert double('a') == 'aa'"]},
}
NO_COMMAS = {"prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
PROGRAM = "def double(x):\n    then = x  # 两倍\n    return then + x"
BLOCK = f"```python\n{PROGRAM}\n```"


@pytest.fixture(scope="module")
def judge():
    try:
        find_tier()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with Judge() as made:
        yield made


@pytest.fixture
def problem_of(tmp_path):
    """The problem of a recipe's `problem_files` whose only row is this."""

    def read(row):
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps(row) + "\n")
        return FileFamily(path).make(random.Random(0), level=0)

    return read


@pytest.fixture
def cold_start(tmp_path, judge):
    """(samples.jsonl's texts, what was dropped) of one problem and R1-Zero's answers to it."""

    def build(problem, *answers):
        outcome = build_cold_start(
            tmp_path / "cold",
            problems=[problem],
            pool=TalkingPool(TOKENIZER, Template.ZERO_SHORT, [problem], {problem.problem_id: answers}),
            tokenizer=TOKENIZER,
            template_from=Template.ZERO_SHORT,
            check=judge.check_many,
            section=ColdStartSection(samples=len(answers)),
            seed=1,
            lineage={"model": "zero"},
        )
        return texts_in(tmp_path / "cold"), outcome.summary["dropped"]

    return build


@pytest.fixture
def rejection(tmp_path, judge):
    """The same of R1's answers and rejection sampling."""

    def build(problem, *answers):
        outcome = build_rejection_set(
            tmp_path / "rejection",
            problems=[problem],
            pool=TalkingPool(TOKENIZER, Template.DEEPSEEK, [problem], {problem.problem_id: answers}),
            tokenizer=TOKENIZER,
            template=Template.DEEPSEEK,
            check=judge.check_many,
            section=RejectionSection(samples=len(answers), general_share=0.0),
            seed=1,
            lineage={"model": "dev2"},
            general=(),
        )
        return texts_in(tmp_path / "rejection"), outcome.summary["dropped"]

    return build


def texts_in(directory):
    return [row["messages"][-1]["content"] for _, row in read_lines(directory / "samples.jsonl")]


def test_a_right_program_is_its_own_summary_and_a_wrong_one_is_dropped(problem_of, cold_start, judge):
    problem = problem_of(DOUBLE)
    wrong = zero("Twice.", BLOCK.replace("+ x", "+ 2"))
    texts, dropped = cold_start(problem, zero("Twice is the sum.", f"Like this:\n{BLOCK}\n"), wrong)
    assert texts == [f"<think>\nTwice is the sum.\n</think>\n{BLOCK}"]
    assert dropped == {"wrong": 1}
    assert judge.check(problem, answer_of(problem, texts[0], shape=R1_SHAPE)).is_correct


def test_a_program_without_a_block_gets_one_and_reads_well_in_every_language(problem_of, cold_start):
    problem = problem_of(DOUBLE | {"language": "zh"})
    texts, dropped = cold_start(problem, zero("两倍。", PROGRAM))
    assert texts == [f"<think>\n两倍。\n</think>\n{BLOCK}"]
    assert dropped == {}


def test_a_block_in_the_thinking_stays_a_fault(problem_of, cold_start, rejection):
    problem = problem_of(DOUBLE)
    _, dropped = cold_start(problem, zero("Twice.", BLOCK), zero(BLOCK, BLOCK))
    assert dropped == {"code_block": 1}
    good = f"<think>\nTwice.\n</think>\nAs asked:\n{BLOCK}"
    texts, dropped = rejection(
        problem,
        good,
        good.replace("Twice.", "```\n2 * x\n```"),
        good.replace("+ x", "+ 2"),
        f"<think>{BLOCK}",
    )
    assert texts == [good]
    assert dropped == {"code_block": 1, "wrong": 1, "no_answer": 1}


def test_lines_of_a_programs_thinking_are_not_taken_for_narration(problem_of):
    thinking = "so = [1]\nnext(so)\n然后"
    (text,) = rewrite_by_template([problem_of(DOUBLE)], [Answer(thinking, BLOCK)])
    assert text == f"<think>\n{thinking}\n</think>\n{BLOCK}"


def test_a_reply_under_instructions_is_its_own_summary(problem_of, cold_start, rejection):
    problem = problem_of(NO_COMMAS)
    texts, dropped = cold_start(problem, zero("所以 none.", "Hello there."), zero("None.", "Hello, there."))
    assert texts == ["<think>\nso none.\n</think>\nHello there."]
    assert dropped == {"wrong": 1}
    assert rejection(problem, *texts) == (texts, {})
