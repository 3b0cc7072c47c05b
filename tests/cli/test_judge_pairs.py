"""`tenth judge-pairs` as it is typed, against an API on this machine."""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenth.base.errors import ConfigError, DataError, RunError
from tenth.cli.main import commands
from tenth.data.preferences import messages_of, read_preferences
from tenth.data.rows import read_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "endpoint"))
sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from reward_base import write_base
from server import Act, Server


def score(messages):
    """The number in an answer is what the judge thinks of it; and it likes whatever stands first."""
    a, b = (float(re.search(rf"<{side}-\w+>\n.*?(\d+)", messages[-1]["content"])[1]) for side in ("a", "b"))
    return "Let me see.", json.dumps({"reason": "r", "a": a + 1, "b": b})


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Writes rows, types the command, gives what came of it."""

    def run(server, rows, *more, out="pairs.jsonl"):
        monkeypatch.setenv("SOME_KEY", server.key)
        file = tmp_path / "answers.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        judge = ("--judge", server.url, "--model", "reasoner", "--key-env", "SOME_KEY")
        command = ("judge-pairs", str(file), *judge, "--out", str(tmp_path / out), *map(str, more))
        return CliRunner().invoke(commands, command)

    return run


def card_of(directory):
    return json.loads((directory / "pairs.card.json").read_text())


def rows_of(directory):
    return [row.values for row in read_rows(directory / "pairs.jsonl")]


def test_answers_become_pairs_for_a_reward_model_and_nothing_is_asked_twice(judged, tmp_path):
    rows = [
        {"prompt": "How?", "answers": ["bad 2", "rather good 7", "good 8"], "model": "tiny"},
        {"prompt": "Why?", "first": "<think>\n9, 9!\n</think>\n\nso 8", "second": "no 2"},
        {"prompt": "When?", "chosen": "late 3", "rejected": "in time 6"},
        {"prompt": "Who?", "first": "he 5", "second": "he 5 "},
    ]
    prices = ("--prices", "0.14/0.55/2.19")
    with Server(answer=score) as server:
        first = judged(server, rows, *prices)
        assert first.exit_code == 0, first.exception
        again = judged(server, rows, *prices)
        assert len(server.requests) == 4 * 4  # both orders twice of four pairs
        usd = server.usd
    assert again.output == first.output
    assert card_of(tmp_path)["judge"]["usd"] == pytest.approx(usd)
    # 2 < 7 by the longer, 7 and 8 are too near, 8 > 2 of equal length, 3 < 6 by the longer: two longer, none
    # shorter, so both go for the balance
    assert card_of(tmp_path)["dropped"] == {
        "balance of lengths": 2,
        "both answers are the same text": 1,
        "margin of 1 or less": 1,
    }
    (row,) = rows_of(tmp_path)
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Why?", rows[1]["first"], "no 2")
    assert row["margin"] == 6.0
    assert row["lineage"]["filters"] == ["margin > 1", "balance of lengths"]


def test_without_the_balance_everything_above_the_margin_is_kept_and_the_card_says_how_long_it_is(
    judged, tmp_path
):
    rows = [
        {"prompt": "How?", "answers": ["bad 2", "rather good 7"], "model": "tiny"},
        {"prompt": "When?", "chosen": "late 3", "rejected": "in time 6"},
        {"prompt": "Why?", "first": "8", "second": "no 2"},
    ]
    with Server(answer=score) as server:
        assert judged(server, rows, "--no-balance-length").exit_code == 0
        card = card_of(tmp_path)
        found = read_preferences([tmp_path / "pairs.jsonl"]).pairs
        assert [(pair.chosen, pair.rejected) for pair in found] == [
            ("rather good 7", "bad 2"),
            ("in time 6", "late 3"),
            ("8", "no 2"),
        ]
        assert rows_of(tmp_path)[0]["lineage"]["model"] == "tiny"
        assert (card["pairs"], card["asked"], card["kept"], card["dropped"]) == (3, 3, 3, {})
        assert card["longer_wins"] == pytest.approx(2 / 3)
        assert card["mean_chosen_chars"] == pytest.approx((13 + 9 + 1) / 3)
        assert card["mean_rejected_chars"] == pytest.approx((5 + 6 + 4) / 3)
        assert card["first_or_chosen_wins"] == pytest.approx(1 / 3)
        num_requests = len(server.requests)
        assert judged(server, rows).exit_code == 0
        assert len(server.requests) == num_requests  # the replies are those of before
        assert card_of(tmp_path)["longer_wins"] == 0.5
        assert card_of(tmp_path)["longer_wins_before_balance"] == pytest.approx(2 / 3)


def test_a_conversation_keeps_its_turns(judged, tmp_path):
    turns = [
        {"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
    ]
    with Server(answer=score) as server:
        rows = [{"messages": turns, "first": "yes 9", "second": "not 1"}]
        assert judged(server, rows).exit_code == 0
    (pair,) = read_preferences([tmp_path / "pairs.jsonl"]).pairs
    assert [message.content for message in messages_of(pair)] == ["a", "b", "c"]


def test_a_local_judges_work_is_kept_part_by_part(tmp_path):
    from tenth.base.records import Finish, Reply
    from tenth.pipeline.judged_pairs import PairSettings, make_pairs, read_answers

    class Local:
        name, num_asked = "local", 0

        def respond(self, conversations, params):
            self.num_asked += len(conversations)
            if self.num_asked > 300:
                raise KeyboardInterrupt
            said = [score([{"content": each[-1].content}])[1] for each in conversations]
            return [[Reply(text=text, reasoning=None, finish=Finish.STOP)] for text in said]

    file, out = tmp_path / "answers.jsonl", tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"q{n}", "first": "yes 9", "second": "not 1"} for n in range(70)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"out": out, "identity": "weights", "keep": tmp_path / "kept", "at_once": 64}
    interrupted, judge = Local(), Local()
    judge.num_asked = 24
    interrupted.num_asked = 40
    with pytest.raises(KeyboardInterrupt):
        make_pairs(read_answers(file), interrupted, PairSettings(), **settings)
    assert not out.exists()
    card = make_pairs(read_answers(file), judge, PairSettings(), **settings)
    assert (card["kept"], judge.num_asked) == (70, 24 + 6 * 4)
    part = next((tmp_path / "kept").iterdir())
    part.write_text("[1.0]\n")
    with pytest.raises(RunError, match="is damaged; remove it"):
        make_pairs(read_answers(file), judge, PairSettings(), **settings)


@pytest.mark.parametrize(
    ("rows", "more", "error", "sentence"),
    [
        ([], (), DataError, "it has no row"),
        ([{"answers": ["a", "b"]}], (), DataError, "line 1: none of prompt, instruction, question"),
        (
            [{"prompt": "q", "answer": "a"}],
            (),
            DataError,
            "no answers to compare (fields: ['answer', 'prompt'])",
        ),
        ([{"prompt": "q", "answers": ["a"]}], (), DataError, "'answers' must be a list of two or more"),
        ([{"prompt": "q", "answers": ["a", 3]}], (), DataError, "'answers[1]' is a number"),
        ([{"prompt": "q", "first": "a"}], (), DataError, "'second' is missing"),
        ([{"prompt": "q", "first": "a", "second": "a"}], (), DataError, "both answers are the same text 1"),
        (
            [{"prompt": "q", "first": "7", "second": "6"}],
            (),
            RunError,
            "margin of 1 or less 1): give more pairs",
        ),
        ([{"prompt": "q", "first": "a 7", "second": "6 "}], ("--margin", 0), RunError, "--no-balance-length"),
        ([{"prompt": "q", "first": "7", "second": "6"}], ("--judgments", 3), ConfigError, "an even number"),
        ([{"prompt": "q", "first": "7", "second": "6"}], ("--margin", 9), ConfigError, "from 0 to below 9"),
        ([{"prompt": "q", "first": "7", "second": "6"}], ("--timeout", 2000), ConfigError, "at most 1800"),
        ([{"prompt": "q", "first": "7", "second": "6"}], ("--key-env", "NONE"), ConfigError, "NONE holds no"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_leaves_nothing(judged, tmp_path, rows, more, error, sentence):
    with Server(answer=score) as server:
        found = judged(server, rows, *more)
    assert isinstance(found.exception, error)
    assert sentence in str(found.exception)
    assert "\n" not in str(found.exception)
    assert not list(tmp_path.glob("pairs.*"))


def test_a_judge_that_keeps_silent_is_waited_for_as_long_as_was_said(judged, monkeypatch):
    monkeypatch.setattr("tenth.endpoint.client.wait_before_retry", lambda *_, **__: None)
    with Server(answer=score, script=lambda number, body: Act(wait_seconds=0.5)) as server:
        found = judged(server, [{"prompt": "q", "first": "7", "second": "1"}], "--timeout", "0.05")
    assert "sent nothing for 0.05 s" in str(found.exception)


def test_a_judge_that_talks_garbage_is_quoted(judged, tmp_path):
    with Server(answer=lambda messages: (None, "Both are lovely.")) as server:
        found = judged(server, [{"prompt": "q", "first": "7", "second": "1"}])
    assert "no verdict 1" in str(found.exception)
    assert "'Both are lovely.'" in str(found.exception)


def test_a_file_of_somebodys_own_is_not_replaced(judged, tmp_path):
    (tmp_path / "mine.jsonl").write_text("precious\n")
    with Server(answer=score) as server:
        found = judged(server, [{"prompt": "q", "first": "9", "second": "1"}], out="mine.jsonl")
        assert "choose another --out" in str(found.exception)
        assert server.requests == []
    assert (tmp_path / "mine.jsonl").read_text() == "precious\n"


def test_a_reward_model_learns_from_what_was_judged(judged, tmp_path):
    base = write_base(tmp_path / "base")
    rows = [{"prompt": f"q{n}", "first": f"yes {9 if n % 2 else 1}", "second": f"not {5}"} for n in range(12)]
    with Server(answer=score) as server:
        assert judged(server, rows).exit_code == 0
    data, out = str(tmp_path / "pairs.jsonl"), str(tmp_path / "reward")
    command = ("reward-model", str(base), "--data", data, "--folds", "2", "--repeats", "1", "--out", out)
    found = CliRunner().invoke(commands, command)
    assert found.exit_code == 0, found.exception
    assert (tmp_path / "reward" / "helpful" / "config.json").exists()
