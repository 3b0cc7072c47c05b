"""The cold start from answers that are known by heart."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_fakes import CUT, TalkingPool, check_equal, make_problem, make_tokenizer, r1, zero

from tenth.base.errors import RunError
from tenth.base.files import read_json, read_lines
from tenth.base.records import Finish
from tenth.pipeline.cold_start import build_cold_start, rewrite_by_template
from tenth.pipeline.r1_recipe import ColdStartSection
from tenth.pipeline.sample_card import Drops
from tenth.pipeline.sample_filter import Candidate, Rules, kept_by
from tenth.tasks.shape import ZERO_SHAPE
from tenth.tokenizer.chat import Answer, Template

TOKENIZER = make_tokenizer()
KINDS = {  # a text for problem 7, and the first rule that it breaks
    zero("first 3+4=7", 7): None,
    zero("first 3+4=7", 7) + CUT: "cut_off",
    "<think>first 3+4=7": "no_answer",
    zero("first 3+4=7", "crash"): "verifier_error",
    zero("first 3+4=8", 8): "wrong",
    "<answer>7</answer>": "form",
    zero("a\na\na\na", 7): "repetition",
    zero(" ".join(map(str, range(150))), 7): "paragraph",
    zero("```", 7): "code_block",
}


@pytest.fixture
def build(tmp_path):
    def call(problems, answers, *, samples=2, into="cold", pool=None, **settings):
        pool = pool or TalkingPool(TOKENIZER, Template.ZERO_SHORT, problems, answers)
        return build_cold_start(
            tmp_path / into,
            problems=problems,
            pool=pool,
            tokenizer=TOKENIZER,
            template_from=Template.ZERO_SHORT,
            check=check_equal,
            section=ColdStartSection(samples=samples),
            seed=1,
            lineage={"model": "zero"},
            **settings,
        )

    return call


def samples(directory):
    return [row for _, row in read_lines(directory / "samples.jsonl")]


def test_right_and_readable_answers_are_kept_one_per_prompt_and_rewritten(build, tmp_path):
    problems = [make_problem(7), make_problem(8), make_problem(9, language="zh")]
    answers = {
        "p7": [zero("所以3+4=7", 7), zero("first 3+4=7", 7)],
        "p8": [zero("3+4=7", 7), "<answer>8</answer>"],
        "p9": [zero("first 4+5=9\n所以9", 9), "<think>9"],
    }
    outcome = build(problems, answers)
    rows = {row["lineage"]["problem_id"]: row for row in samples(tmp_path / "cold")}
    # mixed words are mended; of two right answers one stays
    assert rows["p7"]["messages"] == [
        {"role": "user", "content": "What is 7?"},
        {"role": "assistant", "content": rows["p7"]["messages"][1]["content"]},
    ]
    assert rows["p7"]["messages"][1]["content"] in (r1("so 3+4=7", 7), r1("first 3+4=7", 7))
    assert rows["p9"]["messages"][1]["content"] == r1("首先4+5=9\n所以9", 9, language="zh")
    assert rows.keys() == {"p7", "p9"}
    assert rows["p9"]["lineage"]["model"] == "zero"
    assert rows["p9"]["lineage"]["rewriter"] == "template"
    assert outcome.summary == {
        "sampled": 6,
        "kept": 2,
        "dropped": {"surplus": 1, "wrong": 1, "form": 1, "no_answer": 1},
    }


def test_the_card_and_the_drops_lie_beside_the_samples(build, tmp_path):
    problems = [make_problem(7), make_problem(8, task="other")]
    build(problems, {"p7": [zero("3+4=7", 7)], "p8": [zero("3+5=8", 8), zero("3+5=9", 9)]})
    card = read_json(tmp_path / "cold/card.json")
    assert {name: row["samples"] for name, row in card["domains"].items()} == {"other": 1, "sums": 1}
    assert card["total"]["samples"] == 2
    assert card["total"]["average_rounds"] == 1
    dropped = read_json(tmp_path / "cold/dropped.json")
    assert dropped["wrong"] == {"samples": 1, "examples": [zero("3+5=9", 9)]}
    assert "| other | 1 | 1.0 |" in (tmp_path / "cold/card.md").read_text()


def test_a_rewriter_that_spoils_an_answer_or_fails_loses_it(build, tmp_path):
    problems = [make_problem(number) for number in (1, 2, 3, 4)]

    def rewrite(problems, answers):
        assert answers[0] == Answer("so", "1")
        return [r1("so", 1), r1("so", 99), None, r1("so 所以", 4)]

    outcome = build(problems, {f"p{n}": [zero("so", n)] for n in (1, 2, 3, 4)}, samples=1, rewrite=rewrite)
    assert [row["lineage"]["problem_id"] for row in samples(tmp_path / "cold")] == ["p1"]
    assert outcome.summary["dropped"] == {"rewrite_failed": 1, "rewritten_wrong": 1, "rewritten_language": 1}


def test_a_language_without_a_template_is_not_rewritten():
    problems = [make_problem(1, language="de"), make_problem(2)]
    assert rewrite_by_template(problems, [Answer("so", "1"), Answer(" 1+1=2 ", "2")]) == [
        None,
        r1("1+1=2", 2),
    ]


def test_a_filter_that_keeps_nothing_says_which_rule_dropped_how_many(build, tmp_path):
    problems = [make_problem(7), make_problem(8)]
    with pytest.raises(RunError) as error:
        build(problems, {"p7": ["<think>" + "7" * 200], "p8": [zero("3+4=7", 7)]})
    assert str(error.value) == (
        "the cold start kept none of 4 samples; dropped were: no_answer 2 (such as "
        f"'<think>{'7' * 52}…'), wrong 2 (such as '<think>3+4=7</think><answer>7</answer>'); train R1-Zero "
        "longer, raise cold_start.samples, or loosen cold_start.readable."
    )
    assert not (tmp_path / "cold/samples.jsonl").exists()


def test_parts_that_are_there_are_not_asked_again_and_the_files_end_the_same(build, tmp_path):
    problems = [make_problem(number) for number in range(300)]  # three parts: 128, 128, 44
    answers = {f"p{n}": [zero(f"so {n}", n), zero(f"then {n}", n)] for n in range(300)}
    build(problems, answers, into="whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("parts/0002.jsonl", "samples.jsonl", "card.json", "card.md", "dropped.json"):
        (tmp_path / "cut" / name).unlink()
    pool = TalkingPool(TOKENIZER, Template.ZERO_SHORT, problems, answers)
    build(problems, answers, into="cut", pool=pool)
    assert pool.num_calls == 1
    contents = [
        {
            path.relative_to(tmp_path / run): path.read_bytes()
            for path in (tmp_path / run).rglob("*.*")
            if path.name != "clock.json"  # how long it took
        }
        for run in ("whole", "cut")
    ]
    assert len(contents[0]) == 7
    assert contents[0] == contents[1]


def test_every_part_draws_with_a_seed_of_its_own(build):
    problems = [make_problem(number) for number in range(129)]
    answers = {f"p{n}": [zero(f"so {n}", n)] for n in range(129)}
    pool = TalkingPool(TOKENIZER, Template.ZERO_SHORT, problems, answers)
    build(problems, answers, pool=pool)
    assert len(set(pool.seeds)) == 2


def test_a_filter_checks_all_answers_that_ended_in_one_go():
    asked = []

    def check(problems, answers):
        asked.append(answers)
        return check_equal(problems, answers)

    rules = Rules(check=check, shape=ZERO_SHAPE, readable=ColdStartSection().readable)
    texts = (zero("so", 8), zero("so", 7), "7", zero("so 7", 7))
    finishes = (Finish.STOP, Finish.STOP, Finish.STOP, Finish.LENGTH)
    candidates = [
        Candidate(problem=make_problem(7), text=text, tokens=5, finish=finish)
        for text, finish in zip(texts, finishes, strict=True)
    ]
    drops = Drops()
    assert kept_by(rules, candidates, drops) == [candidates[1]]
    assert asked == [["8", "7"]]
    assert list(drops.counts) == ["wrong", "no_answer", "cut_off"]


@given(st.lists(st.sampled_from(list(KINDS)), max_size=20))
def test_each_sample_is_kept_or_dropped_by_exactly_one_first_rule(texts):
    rules = Rules(check=check_equal, shape=ZERO_SHAPE, readable=ColdStartSection().readable)
    candidates = [
        Candidate(
            problem=make_problem(7),
            text=text,
            tokens=5,
            finish=Finish.LENGTH if text.endswith(CUT) else Finish.STOP,
        )
        for text in texts
    ]
    drops = Drops()
    kept = kept_by(rules, candidates, drops)
    assert [each.text for each in kept] == [text for text in texts if KINDS[text] is None]
    expected = [KINDS[text] for text in texts if KINDS[text] is not None]
    assert drops.counts == {rule: expected.count(rule) for rule in expected}
    assert len(kept) + drops.counts.total() == len(texts)
