"""The published formats: a row of each by hand, what is wrong with rows, how questions are put and judged."""

import json
from pathlib import Path

import pytest

from tenth.base.errors import ConfigError, DataError
from tenth.base.records import Role
from tenth.tasks.judge import Judge
from tenth.tasks.suites.asking import conversation
from tenth.tasks.suites.judging import rule
from tenth.tasks.suites.suite import AnswerKind
from tenth.tasks.suites.table import SUITES, find_suite, load_examples, load_suite

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "eval"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the optional ../shared/data is not here")

# suite -> (file, a row as its authors write it, its answer, an answer that is right, one that is wrong)
ROWS = {
    "gsm8k": (
        "gsm8k_test.jsonl",
        {"question": "3 eggs?", "answer": "1+2=<<1+2=3>>3\n#### 1,003"},
        "1003",
        "She has 1003.",
        "#### 3",
    ),
    "math": (
        "math500.jsonl",
        {"problem": "$x$?", "solution": "So $\\boxed{\\frac{1}{2}}$.", "level": "Level 5"},
        "\\frac{1}{2}",
        "The answer is $0.5$.",
        "\\boxed{2}",
    ),
    "svamp": (
        "svamp.jsonl",
        {"Body": "290 in 2.", "Question": "How big?", "Answer": 145.0},
        "145",
        "\\boxed{145}",
        "\\boxed{290}",
    ),
    "mawps": ("mawps.jsonl", {"input": "A third?", "target": 0.3333333333}, "1/3", "\\boxed{1/3}", "0.3"),
    "multiarith": ("multiarith.jsonl", {"input": "32+42-35?", "target": 39}, "39", "39", "74"),
    "aqua": (
        "aqua_test.jsonl",
        {"question": "Time?", "options": ["A)5", "B)6", "C)7"], "correct": "B"},
        "B",
        "The answer is B.",
        "B or C",
    ),
    "cmath": (
        "cmath.jsonl",
        {"grade": 3, "question": "99页看了90页？", "answer": "9"},
        "9",
        "还剩 9 页。\n答案是 9",
        "答案：90",
    ),
    "mmlu": (
        "mmlu_val.jsonl",
        {"subject": "s", "question": "Order?", "choices": ["4", "8"], "answer": "A"},
        "A",
        "\\boxed{A}",
        "\\boxed{B}",
    ),
    "bbh_boolean": (
        "bbh/boolean_expressions.json",
        {"input": "not True is", "target": "False"},
        "False",
        "So the answer is False.",
        "True",
    ),
    "bbh_arithmetic": (
        "bbh/multistep_arithmetic_two.json",
        {"input": "(1-2) =", "target": "-1"},
        "-1",
        "1 - 2 = -1",
        "\\boxed{1}",
    ),
    "bbh_navigate": ("bbh/navigate.json", {"input": "Turn.", "target": "No"}, "No", "No", "Yes"),
    "ifeval": (
        "ifeval.jsonl",
        {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        "",
        "fine",
        "well, no",
    ),
    "arc_easy": (
        "lm/arc_easy.jsonl",
        {"query": "Question: Why?", "choices": ["x", "y"], "gold": 1},
        "B",
        "B",
        "A",
    ),
    "copa": (
        "lm/copa.jsonl",
        {"query": "It rained, so", "choices": ["wet", "dry"], "gold": 0},
        "A",
        "A.",
        "B.",
    ),
}
JSON_ROWS = {name for name, (file, *_) in ROWS.items() if file.endswith(".json")}


def write(directory, name, *rows):
    path = directory / ROWS[name][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = json.dumps({"canary": "x", "examples": rows})
    path.write_text(whole if name in JSON_ROWS else "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ROWS)
def test_a_published_row_is_read_and_its_answers_are_judged(tmp_path, name):
    _, row, answer, right, wrong = ROWS[name]
    write(tmp_path, name, row)
    (asked,) = load_suite(name, tmp_path)
    assert asked.answer == answer
    assert asked.language == ("zh" if name == "cmath" else "en")
    with Judge() as judge:
        kind = SUITES[name].kind
        assert rule([asked], [right], kind, check=judge.check_many)[0].is_correct
        assert not rule([asked], [wrong], kind, check=judge.check_many)[0].is_correct
        (unread,) = rule([asked], ["<think>" + right], kind, check=judge.check_many)
        assert (unread.is_correct, unread.extracted) == (False, None)


@pytest.mark.parametrize("name", ROWS)
def test_a_damaged_row_names_file_and_line(tmp_path, name):
    path = write(tmp_path, name, ROWS[name][1], {"nothing": "here"})
    with pytest.raises(DataError) as raised:
        load_suite(name, tmp_path)
    unit = "example" if name in JSON_ROWS else "line"
    assert f"{path}, {unit} 2: " in str(raised.value)


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("gsm8k", {"answer": "no mark"}, "where #### and a number belong"),
        ("gsm8k", {"question": 7}, "'question' is 7, where a text belongs"),
        ("math", {"solution": "no box"}, "no \\boxed answer"),
        ("svamp", {"Answer": "many"}, "'Answer' is 'many', where a number belongs"),
        ("svamp", {"Answer": float("nan")}, "where a number belongs"),
        ("aqua", {"correct": "F"}, "where a letter up to C belongs"),
        ("mmlu", {"choices": ["one"]}, "where a list of texts belongs"),
        ("arc_easy", {"gold": 2}, "where a number from 0 to 1 belongs"),
        ("ifeval", {"instruction_id_list": ["no:kind"]}, "none of the 25 kinds"),
        ("ifeval", {"kwargs": []}, "one for each instruction"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(tmp_path, name, change, part):
    write(tmp_path, name, ROWS[name][1] | change)
    with pytest.raises(DataError) as raised:
        load_suite(name, tmp_path)
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r"needs gsm8k\*test\*\.jsonl"):
        load_suite("gsm8k", tmp_path)
    (tmp_path / "gsm8k_test.jsonl").write_text("{broken\n")
    with pytest.raises(DataError, match="line 1"):
        load_suite("gsm8k", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_suite("gsm8k", tmp_path / "nowhere")


def test_a_limit_takes_questions_from_the_whole_file(tmp_path):
    rows = [{"input": f"{number}?", "target": number} for number in range(10)]
    write(tmp_path, "multiarith", *rows, rows[0])
    assert len(load_suite("multiarith", tmp_path)) == 10  # the one that is there twice is asked once
    assert [each.answer for each in load_suite("multiarith", tmp_path, limit=3)] == ["0", "3", "6"]


def test_unknown_suites_are_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="choose from families, gsm8k"):
        find_suite("gsm9k")
    with pytest.raises(ConfigError, match="no right answers"):
        find_suite("mt-bench")


def test_a_question_asks_for_the_form_of_its_answer_in_its_language(tmp_path):
    for name in ("cmath", "bbh_navigate", "mmlu", "ifeval"):
        write(tmp_path, name, ROWS[name][1])
    put = {
        name: conversation(load_suite(name, tmp_path)[0], SUITES[name].kind)[-1].content
        for name in ("cmath", "bbh_navigate", "mmlu", "ifeval")
    }
    assert put["cmath"].startswith("99页看了90页？\n请")
    assert "(Yes or No)" in put["bbh_navigate"]
    assert put["mmlu"].startswith("Order?\nA. 4\nB. 8\nPlease")
    assert put["ifeval"] == "No commas."


def test_solved_examples_are_earlier_turns_and_only_mmlu_has_them(tmp_path):
    write(tmp_path, "mmlu", ROWS["mmlu"][1])
    (tmp_path / "mmlu_dev.jsonl").write_text(json.dumps(ROWS["mmlu"][1] | {"question": "Solved?"}) + "\n")
    examples = load_examples(SUITES["mmlu"], tmp_path)
    turns = conversation(load_suite("mmlu", tmp_path)[0], AnswerKind.CHOICE, examples=examples)
    assert [turn.role for turn in turns] == [Role.USER, Role.ASSISTANT, Role.USER]
    assert turns[1].content == "\\boxed{A}"
    with pytest.raises(ConfigError, match="shots=0"):
        load_examples(SUITES["gsm8k"], tmp_path)


@needs_data
@pytest.mark.parametrize(
    ("name", "count"),
    [
        *[("gsm8k", 200), ("math", 200), ("svamp", 1000), ("aqua", 254), ("cmath", 600), ("ifeval", 541)],
        *[("humaneval", 20), ("copa", 100), ("copa_lm", 100), ("bbh_boolean", 250), ("bbh_arithmetic", 250)],
        *[("bbh_navigate", 250), ("arc_easy", 2376)],
        *[
            ("mawps", 1981),
            ("multiarith", 580),
            ("mmlu", 1529),
            ("lambada", 5151),
        ],  # without repeated questions
    ],
)
def test_the_published_files_are_read_whole(name, count):
    assert len(load_suite(name, DATA)) == count


@needs_data
@pytest.mark.parametrize(
    "name", ["gsm8k", "svamp", "multiarith", "cmath", "math", "aqua", "mmlu", "bbh_navigate"]
)
def test_the_right_answer_of_a_published_row_is_judged_right_in_its_box(name):
    with Judge() as judge:
        for asked in load_suite(name, DATA, limit=40):
            text = f"Some words, 12 of them.\n\\boxed{{{asked.answer}}}"
            assert rule([asked], [text], SUITES[name].kind, check=judge.check_many)[0].is_correct, asked


@needs_data
def test_published_solutions_are_read_like_a_models_answers():
    """GSM8K's own solutions end with ####; MATH's hold the box inside a sentence."""
    with Judge() as judge:
        for asked in load_suite("gsm8k", DATA, limit=40):
            solution = f"{asked.metadata['solution']}\n#### {asked.answer}"
            assert rule([asked], [solution], AnswerKind.NUMBER, check=judge.check_many)[0].is_correct
