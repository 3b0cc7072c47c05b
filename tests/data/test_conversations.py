import json
from pathlib import Path

import pytest

from tenth.base.errors import ConfigError, DataError
from tenth.base.records import Message, Role
from tenth.data.conversations import read_conversations, read_examples
from tenth.tokenizer.chat import Template, render_training
from tenth.tokenizer.train import train_bpe

TOKENIZER = train_bpe(["What is 3+4? <think>3+4=7</think><answer>7</answer>"], vocab_size=300)
SHARED = Path(__file__).parents[3] / "shared/data/train"
Q, A = Message(role=Role.USER, content="q"), Message(role=Role.ASSISTANT, content="a")
S = Message(role=Role.SYSTEM, content="s")


@pytest.fixture
def file_of(tmp_path):
    def write(*rows):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [path]

    return write


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, [Q, A]),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, [Q, A]),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
          "system": "s"}, [S, Q, A]),
        ({"prompt": "q", "completion": "a"}, [Q, A]),
        ({"prompt": "q", "response": "a"}, [Q, A]),
        ({"question": "q", "answer": "a"}, [Q, A]),
        ({"instruction": "q", "input": "", "output": "a"}, [Q, A]),
        ({"prompt": [{"role": "user", "content": "q"}],
          "completion": [{"role": "assistant", "content": "a"}]}, [Q, A]),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
          "prompt": "x", "completion": "y"}, [Q, A]),
    ],
)  # fmt: skip
def test_every_known_shape_reads_as_the_same_messages(file_of, row, messages):
    assert list(read_conversations(file_of(row))) == [messages]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing; mend"),
        (5, "is a number, where a text belongs"),
        (True, "is true, where a text belongs"),
        ({"a": 1}, "is an object, where a text belongs"),
        ([], "is a list, where a text belongs"),
    ],
)
def test_what_stands_where_a_text_belongs_is_called_what_json_calls_it(file_of, content, words):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": content}]}
    with pytest.raises(DataError, match=f"line 1: 'messages: content' {words}"):
        list(read_conversations(file_of(row)))


def test_an_alpaca_input_stands_below_its_instruction(file_of):
    (messages,) = read_conversations(file_of({"instruction": "Add.", "input": "3 4", "output": "7"}))
    assert messages[0].content == "Add.\n3 4"


def test_examples_are_what_the_template_renders(file_of):
    paths = file_of({"prompt": "q", "completion": "a"})
    (example,) = read_examples(paths, TOKENIZER, template=Template.ZERO_SHORT, max_tokens=100).examples
    assert example == render_training(TOKENIZER, [Q, A], template=Template.ZERO_SHORT)


def test_examples_that_are_too_long_are_counted_and_left_out(file_of):
    paths = file_of({"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "7" * 200})
    found = read_examples(paths, TOKENIZER, template=Template.ZERO_SHORT, max_tokens=100)
    assert (len(found.examples), found.num_too_long) == (1, 1)


def test_nothing_but_too_long_examples_is_refused(file_of):
    paths = file_of({"prompt": "q", "completion": "7" * 200})
    with pytest.raises(ConfigError, match=r"all 1 examples of .* are longer than 100 tokens"):
        read_examples(paths, TOKENIZER, template=Template.ZERO_SHORT, max_tokens=100)


def test_a_file_without_examples_is_refused(file_of):
    with pytest.raises(DataError, match="holds no example"):
        read_examples(file_of(), TOKENIZER, template=Template.ZERO, max_tokens=100)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, r"line 2: no field 'messages' and none of completion"),
        ({"completion": "a"}, r"line 2: none of prompt"),
        ({"prompt": "q", "completion": 7}, r"line 2: 'completion' is a number, where a text belongs"),
        ({"messages": []}, r"line 2: 'messages' must be a list of messages"),
        ({"messages": ["hi"]}, r"line 2: 'messages' holds a str, not a message"),
        (
            {"messages": [{"role": "boss", "content": "x"}]},
            r"line 2: the role 'boss' in 'messages' is none of",
        ),
        ({"messages": [{"role": "user"}]}, r"line 2: 'messages: content' is missing"),
        ({"messages": [{"role": "user", "content": "q"}]}, r"line 2: .* must end with an assistant message"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(file_of, row, message):
    with pytest.raises(DataError, match=message):
        read_examples(
            file_of({"prompt": "q", "completion": "a"}, row),
            TOKENIZER,
            template=Template.ZERO,
            max_tokens=999,
        )


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")
def test_real_files_read_whole():
    dolly = read_examples(
        [SHARED / "sft_dolly_hhrlhf_small.jsonl"], TOKENIZER, template=Template.DEEPSEEK, max_tokens=4000
    )
    assert len(dolly.examples) + dolly.num_too_long == 1000
    assert sum(1 for _ in read_conversations([SHARED / "sft_identity_en_zh.json"])) == 91
