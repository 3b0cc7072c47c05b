import json
from pathlib import Path

import pytest

from tenth.base.errors import DataError
from tenth.base.records import Message, Role
from tenth.data.preferences import as_labels, count_languages, messages_of, read_preferences

SHARED = Path(__file__).parents[3] / "shared/data/train"
Q = Message(role=Role.USER, content="q")
ASKED = "\n\nHuman: q\n\nAssistant:"
GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}


@pytest.fixture
def file_of(tmp_path):
    def write(*rows):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [path]

    return write


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}],
         "rejected": [{"role": "assistant", "content": "b"}]},
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"},
         "rejected": {"from": "gpt", "value": "b"}},
        {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
         "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    ],
)  # fmt: skip
def test_pairs_of_every_known_shape(file_of, row):
    (pair,) = read_preferences(file_of(row)).pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == ("q", "a", "b")
    assert messages_of(pair) == [Q]


def test_a_dialogue_keeps_its_turns(file_of):
    start = "\n\nHuman: q\n\nAssistant: yes?\n\nHuman: more"
    row = {"chosen": f"{start}\n\nAssistant: a", "rejected": f"{start}\n\nAssistant: b"}
    (pair,) = read_preferences(file_of(row)).pairs
    assert [(turn.role, turn.content) for turn in messages_of(pair)] == [
        ("user", "q"),
        ("assistant", "yes?"),
        ("user", "more"),
    ]
    assert (pair.chosen, pair.rejected) == ("a", "b")


@pytest.mark.parametrize(
    ("label", "is_safe"), [(1, True), (0, False), ("safe", True), ("unsafe", False), (True, True)]
)
def test_labelled_answers(file_of, label, is_safe):
    (answer,) = read_preferences(file_of({"prompt": "q", "response": "a", "label": label})).labelled
    assert (answer.prompt, answer.response, answer.is_safe) == ("q", "a", is_safe)


def test_a_pair_is_two_labels(file_of):
    labels = as_labels(read_preferences(file_of(GOOD)).pairs)
    assert [(each.response, each.is_safe) for each in labels] == [("a", True), ("b", False)]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (GOOD | {"rejected": " a "}, "both answers are the same text"),
        (GOOD | {"rejected": " "}, "an answer is empty"),
        (GOOD | {"prompt": ""}, "there is no question"),
        (
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: other\n\nAssistant: b"},
            "not the same",
        ),
        ({"prompt": "q", "response": "", "label": 1}, "an answer is empty"),
    ],
)
def test_a_row_that_prefers_nothing_is_left_out_and_named_with_its_line(file_of, row, rule):
    (path,) = file_of(GOOD, row, row, GOOD)
    found = read_preferences([path])
    assert len(found.pairs) == 2
    (sentence,) = found.sentences()
    assert sentence.startswith("2 rows left out, ")
    assert rule in sentence
    assert f"{path}, line 2, {path}, line 3." in sentence


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "a"}, "line 1: 'rejected' is missing"),
        ({"prompt": "q", "chosen": "a", "rejected": 3}, "line 1: 'rejected' is a number"),
        ({"chosen": "a", "rejected": "b"}, "line 1: no prompt: none of"),
        ({"prompt": "q", "response": "a", "label": "perhaps"}, "line 1: 'label' is 'perhaps'"),
        ({"prompt": "q", "answer": "a"}, "line 1: 'chosen' is missing"),
        (GOOD | {"rejected": "a"}, "no preference is left; 1 row left out, both answers are the same text"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_its_line(file_of, row, message):
    with pytest.raises(DataError, match=message):
        read_preferences(file_of(row))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")
def test_the_real_files_read_whole():
    files = [SHARED / f"pref_dpo_{language}_demo.json" for language in ("en", "zh")]
    helpful = read_preferences(files)
    assert len(helpful.pairs) == 600
    assert not helpful.dropped
    languages = count_languages(helpful.pairs)
    assert 280 <= languages["zh"] <= 310
    harmless = read_preferences([SHARED / "pref_hh_harmless_1800.jsonl.gz"])
    # two rows ask nothing that both answer, four have an empty answer: counted with other code
    assert {rule: len(places) for rule, places in harmless.dropped.items()} == {
        "there is no question, or not the same for both answers": 2,
        "an answer is empty": 4,
    }
    assert len(harmless.pairs) == 1794
    assert all(messages_of(pair)[-1].role is Role.USER for pair in harmless.pairs)
