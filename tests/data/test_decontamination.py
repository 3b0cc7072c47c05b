import json
from pathlib import Path

import pytest

from tenth.base.errors import DataError
from tenth.data.decontamination import read_tests

TEN = "one two three four five six seven eight nine ten"


def build_tests(tmp_path, rows, *, name="test.jsonl", **options):
    path = tmp_path / name
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in rows) if name.endswith("jsonl") else json.dumps(rows)
    )
    return read_tests([path], with_solutions=options.pop("with_solutions", False), **options)


def found(tests, text, subject=None):
    return tests.find(text, subject=text if subject is None else subject)


def test_ten_words_in_a_row_are_found_whatever_case_and_punctuation(tmp_path):
    tests = build_tests(tmp_path, [{"question": "Short?"}, {"question": f"Count: {TEN}!"}])
    hit = found(tests, f"so he said {TEN.upper().replace(' ', ', ')} and went on")
    assert (hit.file, hit.text_number, hit.words) == (0, 2, TEN)
    assert found(tests, TEN.replace("five", "fife")) is None


def test_chinese_is_found_by_ten_characters(tmp_path):
    tests = build_tests(tmp_path, [{"question": "小明有三个苹果又买了五个"}])
    assert found(tests, "题目说小明有三个苹果，又买了").words == "小 明 有 三 个 苹 果 又 买 了"
    assert found(tests, "小明有三个苹果又买") is None


def test_a_short_question_is_found_only_as_the_whole_of_what_is_asked(tmp_path):
    tests = build_tests(tmp_path, [{"question": "What is 3 + 4?"}])
    assert found(tests, "what is 3+4", subject="what is 3+4") is not None
    assert found(tests, "What is 3 * 4?") is None
    assert found(tests, "He asked: what is 3 + 4?") is None


@pytest.mark.parametrize(
    "row",
    [
        {"turns": ["Hello.", TEN]},
        {"Body": "one two three four five", "Question": "six seven eight nine ten"},
        {"messages": [{"role": "user", "content": TEN}, {"role": "assistant", "content": "x"}]},
        {"conversations": [{"from": "human", "value": TEN}]},
        {"examples": [{"input": TEN, "target": "x"}], "canary": "c"},
    ],
)
def test_questions_are_found_in_every_shape_that_tests_are_published_in(tmp_path, row):
    assert found(build_tests(tmp_path, row, name="test.json"), TEN) is not None


def test_reference_solutions_count_when_asked_for(tmp_path):
    rows = [{"question": "Why is that so?", "answer": TEN}]
    assert found(build_tests(tmp_path, rows), TEN) is None
    assert found(build_tests(tmp_path, rows, with_solutions=True), TEN) is not None


def test_a_template_that_a_test_quotes_can_be_named(tmp_path):
    tests = build_tests(tmp_path, [{"question": f"{TEN} eleven"}], ignore=TEN)
    assert found(tests, f"zero {TEN} twelve") is None
    assert found(tests, f"{TEN} eleven").words == "two three four five six seven eight nine ten eleven"


def test_a_directory_is_searched_and_other_files_in_it_are_not_read(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.jsonl").write_text(json.dumps({"question": TEN}) + "\n")
    (tmp_path / "notes.md").write_text(TEN)
    assert [test.path.name for test in read_tests([tmp_path], with_solutions=False).files] == ["a.jsonl"]


def test_nothing_to_compare_with_finds_nothing():
    assert found(read_tests([], with_solutions=False), TEN) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"x": 1}\n', "has no field that asks something"),
        ("a.jsonl", "{", "line 1: not valid JSON"),
        ("a.bin", "x", r"is none of \.txt"),
        ("a.json", "[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_asks_nothing_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_tests([tmp_path / name], with_solutions=False)


DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.skipif(not DATA.exists(), reason="the optional ../shared/data is not here")
def test_every_published_evaluation_file_is_understood():
    tests = read_tests([DATA / "eval"], with_solutions=True)
    assert len(tests.files) == 23
    plain = read_tests([DATA / "eval"], with_solutions=False)
    rows = {test.path.name: test.num_texts for test in plain.files}
    assert (rows["gsm8k_test_dev200.jsonl"], rows["humaneval_first20.jsonl"]) == (200, 20)
    assert (rows["svamp.jsonl"], rows["cmath_zh.jsonl"], rows["mt_bench_question.jsonl"]) == (1000, 600, 80)
