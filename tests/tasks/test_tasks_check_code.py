import gc
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import DataError, SandboxUnavailable, VerifierError
from tenth.base.records import Problem
from tenth.sandbox.limits import Outcome, Program, TestResults
from tenth.sandbox.pool import SandboxPool, find_tier
from tenth.tasks.check_code import CodeChecker, extract_code, same_output, write_code
from tenth.tasks.code_sets import read_humaneval, read_mbpp
from tenth.tasks.judge import Judge, answer_of
from tenth.tasks.problem_files import read_prompts
from tenth.tasks.rewards import RewardSet
from tenth.tasks.shape import ANY_SHAPE, R1_SHAPE, ZERO_SHAPE
from tenth.tasks.task import problem as make_problem

DATA = Path(__file__).parents[2].parent / "shared" / "data"
HUMANEVAL = DATA / "eval" / "humaneval_first20.jsonl"
MBPP = DATA / "train" / "mbpp_prompt_val_train.jsonl"


@pytest.fixture(scope="module")
def checker():
    try:
        find_tier()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with CodeChecker() as made:
        yield made


def problem(**code) -> Problem:
    return Problem(problem_id="0", task="code/test", prompt="", answer="", metadata={"code": code})


DOUBLE = problem(tests=["assert double(2) == 4", "assert double('a') == 'aa'"])
ECHO = problem(inputs=["1 2\n", "3\n"], outputs=["2 1\n", "3"])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("So:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```python\nx = 1\n```\n```py\nx = 2\n```\n```\nx = 3\n```\n```bash\nls\n```", "x = 3\n"),
        ("<think>\n```python\nx = 1\n```\n</think>\n```python\nx = 2\n```", "x = 2\n"),
        ("<think>\n```python\nx = 1\n```\n</think>\nx = 2", "\nx = 2"),
        ("<think>\n```python\nx = 1\n```", None),
        ("```python\nx = 1", None),
        ("```bash\nls\n```", None),
        ("```python\ns = '```'\n```", "s = '```'\n"),
        ("  \n ", None),
        ("    return 1", "    return 1"),
        ("x" * (1 << 19), None),
    ],
)
def test_the_last_python_block_behind_the_thinking_is_the_answer(text, code):
    assert extract_code(text) == code


@given(st.text(st.characters(exclude_characters="`"), min_size=1).filter(str.strip))
def test_a_written_program_is_read_back_up_to_blanks_at_its_end(code):
    assert extract_code(f"<think>\n</think>\n{write_code(code)}") == code.rstrip() + "\n"


def test_space_between_words_does_not_count_but_words_do():
    assert same_output("1 2\n3\n", "1  2 \r\n3")
    assert not same_output("1 2", "12")
    assert not same_output("", "0")


def test_all_tests_have_to_pass(checker):
    right, half = "def double(x): return 2 * x", "def double(x): return 4"
    verdicts = checker.check_many([DOUBLE, DOUBLE], [right, half])
    assert [verdict.is_correct for verdict in verdicts] == [True, False]
    assert verdicts[0].extracted == right


def test_a_program_has_to_be_right_for_all_inputs(checker):
    right, one = "print(*input().split()[::-1])", "print(input())"
    verdicts = checker.check_many([ECHO, ECHO], [right, one])
    assert [verdict.is_correct for verdict in verdicts] == [True, False]


def test_an_answer_without_code_is_wrong_and_runs_nothing():
    with CodeChecker(pool=Forbidden()) as checker:
        verdict = checker.check(DOUBLE, "<think> def double(x): return 2 * x")
    assert not verdict.is_correct
    assert verdict.error is None


def test_a_sandbox_that_failed_is_nobodys_wrong_answer():
    with CodeChecker(pool=Failing()) as checker:
        verdict = checker.check(DOUBLE, "def double(x): return 2 * x")
    assert verdict.error == "the sandbox ended unexpectedly."


def test_a_problem_without_tests_is_refused_with_a_sentence():
    with CodeChecker(pool=Forbidden()) as checker, pytest.raises(DataError, match="has no tests; put tests"):
        checker.check(problem(), "x = 1")
    with (
        CodeChecker(pool=Forbidden()) as checker,
        pytest.raises(DataError, match="an input without an output"),
    ):
        checker.check(problem(inputs=["1"], outputs=[]), "x = 1")


def test_the_judge_sends_code_to_the_sandbox(checker):
    with Judge() as judge:
        assert judge.check(DOUBLE, "double = lambda x: 2 * x").is_correct


class Recording(SandboxPool):
    """Everything passes; how many came together is kept."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def read_many(self, jobs, read):
        self.sizes.append(len(jobs))
        return [read(place, TestResults(passed=(True,), reasons=("",))) for place in range(len(jobs))]


def test_all_programs_of_a_batch_run_side_by_side_and_verdicts_keep_their_order():
    pool = Recording()
    number, endless = make_problem("sum", "3+4?", "7"), "while True: pass"
    with Judge(code=CodeChecker(pool=pool)) as judge:
        verdicts = judge.check_many(
            [DOUBLE, number, DOUBLE, number, DOUBLE], [endless, "7", "", "8", endless]
        )
        assert [each.is_correct for each in verdicts] == [True, True, False, False, True]
        assert pool.sizes == [2]
        texts = [IN_R1_SHAPE, "<think>\n7\n</think>\n\\boxed{7}", IN_R1_SHAPE]
        scored = RewardSet(judge.check_many, weights={"accuracy": 1.0}, shape=R1_SHAPE).score(
            [DOUBLE, number, DOUBLE], texts
        )
        assert [each.reward for each in scored] == [1.0] * 3
        assert pool.sizes == [2, 2]


def test_a_judge_that_sees_no_program_starts_no_sandbox():
    with Judge(code=CodeChecker(pool=Refusing())) as judge:
        assert [each.is_correct for each in judge.check_many([make_problem("sum", "3+4?", "7")], ["7"])] == [
            True
        ]


def test_what_a_program_prints_is_let_go_as_soon_as_it_is_read(checker):
    def alive(_, result):
        assert result.stdout
        return sum(type(each) is Outcome for each in gc.get_objects())

    with SandboxPool(workers=1) as pool:
        assert len(set(pool.read_many([Program(source="print(1)")] * 4, alive))) == 1


IN_R1_SHAPE = "<think>\nTwice.\n</think>\nAs asked:\n```python\ndef double(x): return 2 * x\n```"
IN_TAGS = "<think>Twice.</think> <answer>```python\ndef double(x): return 2 * x\n```</answer>"


@pytest.mark.parametrize(
    ("shape", "text"), [(R1_SHAPE, IN_R1_SHAPE), (ANY_SHAPE, IN_R1_SHAPE), (ZERO_SHAPE, IN_TAGS)]
)
def test_a_program_that_fits_into_no_box_earns_its_reward(checker, shape, text):
    rewards = RewardSet(checker.check_many, weights={"accuracy": 1.0}, shape=shape)
    right, wrong = rewards.score([DOUBLE] * 2, [text, text.replace("2 *", "3 *")])
    assert (right.rewards, right.error) == ({"accuracy": 1.0}, None)
    assert wrong.rewards == {"accuracy": 0.0}


def test_a_program_is_read_behind_the_thinking_alone_and_numbers_stay_in_their_box():
    open_thought = IN_R1_SHAPE.replace("</think>", "")
    assert answer_of(DOUBLE, open_thought, shape=R1_SHAPE) is None
    number = make_problem("sum", "3+4?", "7")
    assert answer_of(number, "<think>\n3+4\n</think>\nIt is 7.", shape=R1_SHAPE) is None
    assert answer_of(number, "<think>\n3+4\n</think>\nIt is \\boxed{7}.", shape=R1_SHAPE) == "7"


class Forbidden(SandboxPool):
    def read_many(self, jobs, read):
        assert not jobs
        return []


class Refusing(SandboxPool):
    def read_many(self, jobs, read):
        raise AssertionError("nothing was to run")


class Failing(SandboxPool):
    def read_many(self, jobs, read):
        return [read(place, VerifierError("the sandbox ended unexpectedly.")) for place in range(len(jobs))]


# the published sets


def write_rows(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


MBPP_ROW = {
    "task_id": 7,
    "text": "Write a function to add one.",
    "code": "def helper(x):\r\n  return x\r\ndef inc(x):\r\n  return helper(x) + 1",
    "test_setup_code": "",
    "test_list": ["assert int(inc(1)) == 2", "assert inc(2) == 3"],
}


def test_an_mbpp_row_becomes_a_problem_that_its_solution_passes(tmp_path, checker):
    (made,) = read_mbpp(write_rows(tmp_path / "mbpp.jsonl", MBPP_ROW))
    assert made.task == "code/mbpp"
    assert made.metadata["code"]["entry_point"] == "inc"
    assert "assert int(inc(1)) == 2" in made.prompt
    assert checker.check(made, made.answer).is_correct
    assert not checker.check(made, "def inc(x): return 2").is_correct


HUMANEVAL_ROW = {
    "task_id": "HumanEval/x",
    "prompt": 'def helper(x):\n    return x\n\n\ndef inc(x: int) -> int:\n    """ Add one. """\n',
    "entry_point": "inc",
    "canonical_solution": "    return helper(x) + 1\n",
    "test": "def check(candidate):\n    assert candidate(helper(1)) == 2\n    assert candidate(2) == 3\n",
}


def test_a_humaneval_answer_is_a_body_or_a_whole_function(tmp_path, checker):
    (made,) = read_humaneval(write_rows(tmp_path / "humaneval.jsonl", HUMANEVAL_ROW))
    whole = "```python\ndef inc(x):\n    return x + 1\n```"
    verdicts = checker.check_many([made] * 4, [made.answer, whole, "    pass", "helper = inc = lambda x: 2"])
    assert [verdict.is_correct for verdict in verdicts] == [True, True, False, False]


def test_published_sets_and_ones_own_are_problem_files(tmp_path, checker):
    own = {"prompt": "Double it.", "code": {"tests": ["assert double(2) == 4"]}}
    path = write_rows(tmp_path / "mixed.jsonl", MBPP_ROW, HUMANEVAL_ROW, own)
    made = read_prompts(path)
    assert [each.task for each in made[:2]] == ["code/mbpp", "code/humaneval"]
    assert made[:2] == [
        *read_mbpp(write_rows(path, MBPP_ROW)),
        *read_humaneval(write_rows(path, HUMANEVAL_ROW)),
    ]
    with Judge() as judge:
        assert judge.check(made[2], "double = lambda x: 2 * x").is_correct
    with pytest.raises(DataError, match="line 1: 'test_list' is '3', where text belongs"):
        read_prompts(write_rows(path, MBPP_ROW | {"test_list": 3}))


def test_a_row_of_another_set_is_refused_by_line(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", MBPP_ROW, {"question": "?"})
    with pytest.raises(DataError, match="line 2: no 'task_id'"):
        read_mbpp(path)
    with pytest.raises(DataError, match="no Python"):
        read_mbpp(write_rows(path, MBPP_ROW | {"code": "def ("}))
    with pytest.raises(DataError, match="calls no function"):
        read_mbpp(write_rows(path, MBPP_ROW | {"code": "x = 1"}))


@pytest.mark.skipif(not HUMANEVAL.exists(), reason="the optional ../shared/data is not here")
@pytest.mark.parametrize(
    ("read", "path", "count", "every"),
    [
        (read_humaneval, HUMANEVAL, 20, 2),
        (read_mbpp, MBPP, 474, 20),
        pytest.param(read_humaneval, HUMANEVAL, 20, 1, marks=pytest.mark.slow),
        pytest.param(read_mbpp, MBPP, 474, 1, marks=pytest.mark.slow),
    ],
)
def test_every_published_solution_passes_and_no_stub_does(checker, read, path, count, every):
    problems = read(path)
    assert len(problems) == count
    problems = problems[::every]
    verdicts = checker.check_many(problems, [made.answer for made in problems])
    wrong = [
        made.metadata["task_id"]
        for made, verdict in zip(problems, verdicts, strict=True)
        if not verdict.is_correct
    ]
    assert not wrong
    for returned in ("None", "True", "a[0]", "MARK"):
        mutants = [mutant(made, returned) for made in problems[:40]]
        verdicts = checker.check_many(problems[:40], mutants)
        assert not [verdict.extracted for verdict in verdicts if verdict.is_correct or verdict.error]


def mutant(made: Problem, returned: str) -> str:
    """The right solution in a wrapper that returns something else; MARK: the right value in a list."""
    name = made.metadata["code"]["entry_point"]
    body = made.metadata["code"].get("prelude", "") + made.answer
    wrapped = "[right(*a)]" if returned == "MARK" else returned
    return f"{body}\nright = {name}\ndef {name}(*a):\n    return {wrapped}\n"
