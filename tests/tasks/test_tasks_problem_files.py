"""Problem files: every accepted shape, and one clear sentence for every broken one."""

import json
from pathlib import Path

import pytest

from tenth.base.errors import DataError
from tenth.tasks.judge import Judge
from tenth.tasks.problem_files import read_problems, read_prompts

GSM8K = Path("../shared/data/train/gsm8k_train.jsonl")


@pytest.fixture
def write(tmp_path):
    def save(*rows, name: str = "sums.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return save


@pytest.mark.parametrize("prompt_name", ["prompt", "question", "problem"])
@pytest.mark.parametrize("answer_name", ["answer", "solution", "ground_truth", "label"])
def test_columns_may_have_their_usual_names(write, prompt_name, answer_name):
    problem = read_problems(write({prompt_name: "1+1?", answer_name: 2}))[0]
    assert (problem.prompt, problem.answer, problem.task) == ("1+1?", "2", "sums")


def test_every_column_travels_along_and_known_ones_are_used(write):
    row = {"prompt": "1+1?", "answer": "2", "task": "add", "level": 3, "language": "zh", "source": "book"}
    problem = read_problems(write(row))[0]
    assert (problem.task, problem.level, problem.language) == ("add", 3, "zh")
    assert problem.metadata == row


def test_the_answer_wins_over_the_solution(write):
    problem = read_problems(write({"problem": "1+1?", "solution": "It is \\boxed{2}.", "answer": "2"}))[0]
    assert problem.answer == "2"
    assert problem.metadata["solution"] == "It is \\boxed{2}."


@pytest.mark.parametrize(
    ("written", "answer"), [("48+24=72\n#### 1,072", "1072"), ("so $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}")]
)
def test_a_whole_solution_is_cut_down_to_its_end(write, written, answer):
    problem = read_problems(write({"question": "?", "answer": written}))[0]
    assert problem.answer == answer
    assert problem.metadata["solution"] == written


def test_verl_nests_its_answer_and_writes_prompts_as_messages(write):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    row = {"data_source": "x", "prompt": messages, "reward_model": {"style": "rule", "ground_truth": "2"}}
    problem = read_problems(write(row))[0]
    assert (problem.prompt, problem.answer) == ("1+1?", "2")
    assert problem.metadata["messages"] == messages
    assert problem.metadata["data_source"] == "x"


def test_prompts_for_other_rewards_need_no_answer(write):
    first, second = read_prompts(write({"prompt": "1+1?", "wish": "short"}, {"prompt": "2+2?", "answer": 4}))
    assert (first.answer, dict(first.metadata)) == ("", {"prompt": "1+1?", "wish": "short"})
    assert second.answer == "4"


def test_what_a_row_has_instead_of_a_prompt_or_an_answer_is_said(write):
    many = {f"column{i}": i for i in range(14)}
    with pytest.raises(DataError, match=r"no prompt; .* \(the columns are: column0, .*column11 and 2 more"):
        read_prompts(write(many))
    with pytest.raises(DataError, match=r"no answer; .* \(the columns are: prompt, reply\)"):
        read_problems(write({"prompt": "1+1?", "reply": "2"}))


def test_a_column_called_messages_is_not_mistaken_for_the_prompts_own(write):
    row = {"prompt": "1+1?", "answer": "2", "messages": ["anything"]}
    assert "messages" not in read_problems(write(row))[0].metadata


def test_parquet_reads_like_json_lines(tmp_path, write):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"question": "1+1?", "answer": "2"}, {"question": "2+2?", "answer": "4"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "sums.parquet")
    assert read_problems(tmp_path / "sums.parquet") == read_problems(write(*rows))
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_problems(tmp_path / "bad.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"pip install tenth\[parquet\]"):
        read_problems(tmp_path / "a.parquet")


GOOD = {"prompt": "1+1?", "answer": "2"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": ', "line 2: not valid JSON"),
        ([1], "line 2: expected an object with prompt and answer, found list"),
        ({"answer": "2"}, "line 2: no prompt; name the column one of prompt, question, problem"),
        ({"prompt": "1+1?"}, "line 2: no answer; name the column one of answer"),
        ({"prompt": "1+1?", "answer": None}, "line 2: no answer"),
        ({"prompt": "1+1?", "answer": " "}, "line 2: the answer in 'answer' is empty"),
        ({"prompt": "1+1?", "answer": ["2"]}, "line 2: the answer in 'answer' is a list"),
        ({"prompt": 5, "answer": "2"}, "line 2: the prompt is neither text nor a list"),
        (
            {"prompt": [{"role": "user"}], "answer": "2"},
            "line 2: a message of the prompt has no role or no text",
        ),
        ({"prompt": [{"role": "system", "content": "x"}], "answer": "2"}, "line 2: .* no user message"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(write, row, message):
    with pytest.raises(DataError, match=f"sums.jsonl, {message}"):
        read_problems(write(GOOD, row))


def test_a_row_of_ifeval_needs_no_answer_and_is_judged_by_its_instructions(write):
    row = {"prompt": "Say hi.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    (found,) = read_problems(write(row))
    assert found.answer == "punctuation:no_comma"
    with Judge() as judge:
        assert judge.check(found, "Hi there.").is_correct
        assert not judge.check(found, "Hi, there.").is_correct
    with pytest.raises(DataError, match="line 1: 'kwargs' is no list of 1 objects"):
        read_problems(write(row | {"kwargs": []}))


def test_an_empty_and_a_missing_file_are_refused(write, tmp_path):
    with pytest.raises(DataError, match="holds no problems"):
        read_problems(write(""))
    with pytest.raises(DataError, match="does not exist"):
        read_problems(tmp_path / "none.jsonl")


@pytest.mark.skipif(not GSM8K.exists(), reason="the GSM8K file is not here")
def test_gsm8k_reads_whole():
    problems = read_problems(GSM8K)
    assert len(problems) == 7473
    assert problems[0].answer == "72"
    assert problems[0].metadata["solution"].startswith("Natalia sold 48/2")
