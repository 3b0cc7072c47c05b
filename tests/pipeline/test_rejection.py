"""Rejection sampling from answers that are known by heart: which are kept, why the others are not."""

from collections import Counter
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_fakes import CUT, TalkingPool, check_equal, make_problem, make_tokenizer, r1

from tenth.base.errors import RunError
from tenth.base.files import read_json, read_lines
from tenth.base.records import Verdict
from tenth.pipeline.r1_recipe import RejectionSection
from tenth.pipeline.rejection import build_rejection_set
from tenth.tasks.readability import ReadableLimits, faults
from tenth.tasks.shape import R1_SHAPE
from tenth.tokenizer.chat import Template

TOKENIZER = make_tokenizer()


def general_rows():
    """Without end."""
    for number in count():
        turns = [("user", f"Hello {number}"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "Bye.")]
        yield {
            "messages": [{"role": role, "content": content} for role, content in turns],
            "domain": "general",
            "language": "en",
            "lineage": {"model": "template"},
        }


@pytest.fixture
def build(tmp_path):
    return lambda *args, **settings: build_in(tmp_path, *args, **settings)


def build_in(directory, problems, answers, *, judge=None, seed=1, **section):
    section = {"samples": 4, "general_share": 0.0} | section
    outcome = build_rejection_set(
        directory,
        problems=problems,
        pool=TalkingPool(TOKENIZER, Template.DEEPSEEK, problems, answers),
        tokenizer=TOKENIZER,
        template=Template.DEEPSEEK,
        check=check_equal,
        section=RejectionSection(**section),
        seed=seed,
        lineage={"model": "dev2"},
        general=general_rows(),
        judge=judge,
    )
    return outcome, [row for _, row in read_lines(directory / "samples.jsonl")]


def answer_of(row):
    return row["messages"][-1]["content"]


def test_wrong_mixed_long_and_coded_answers_are_dropped_by_their_first_rule(build):
    problems = [make_problem(7), make_problem(8)]
    answers = {
        "p7": [r1("so 3+4=7", 7), r1("so 3+4=8", 8), r1("so 所以", 7), r1("```\nso", 7)],
        "p8": ["\\boxed{8}", r1("so " + "8 " * 8 + "~" * 400, 8), r1("so", 8) + CUT, r1("so", "crash")],
    }
    outcome, rows = build(problems, answers)
    assert [answer_of(row) for row in rows] == [r1("so 3+4=7", 7)]
    assert rows[0]["domain"] == "sums"
    assert outcome.summary == {
        "sampled": 8,
        "kept": 1,
        "general": 0,
        "dropped": {
            **{"wrong": 1, "language": 1, "code_block": 1, "form": 1},
            **{"repetition": 1, "cut_off": 1, "verifier_error": 1},
        },
    }


def test_the_same_thinking_twice_about_one_problem_is_one_sample(build):
    problems = [make_problem(7), make_problem(8)]
    answers = {
        "p7": [r1("So 3+4=7", 7), r1("so  3 +4=7\n", 7), r1("so 7", 7), r1("so 7", 7)],
        "p8": [r1("so 7", 8)],  # about another problem
    }
    outcome, rows = build(problems, answers, keep_per_prompt=9)
    assert sorted(map(answer_of, rows)) == sorted([r1("So 3+4=7", 7), r1("so 7", 7), r1("so 7", 8)])
    assert outcome.summary["dropped"] == {"duplicate": 5}


def test_no_more_than_so_many_stay_of_one_prompt(build):
    answers = {"p7": [r1(f"so {i}", 7) for i in range(4)]}
    outcome, rows = build([make_problem(7)], answers, keep_per_prompt=3)
    assert len(rows) == 3
    assert outcome.summary["dropped"] == {"surplus": 1}


def test_no_domain_holds_more_than_its_ratio_of_the_median_domain(build):
    sizes = {"small": 1, "middle": 3, "large": 10}  # at most 1.5 times 3, rounded up: 5
    problems = [
        make_problem(100 * i + n, task=task) for i, task in enumerate(sizes) for n in range(sizes[task])
    ]
    answers = {each.problem_id: [r1("so", each.answer)] for each in problems}
    outcome, rows = build(problems, answers, samples=1, max_domain_ratio=1.5)
    assert Counter(row["domain"] for row in rows) == {"small": 1, "middle": 3, "large": 5}
    assert outcome.summary["dropped"] == {"balance": 5}


def test_general_data_makes_up_its_share_of_all_rows_and_lies_among_the_others(build, tmp_path):
    problems = [make_problem(n) for n in range(15)]
    answers = {each.problem_id: [r1("so", each.answer)] for each in problems}
    outcome, rows = build(problems, answers, samples=1, general_share=0.25)
    assert outcome.summary["general"] == 5  # of 20
    assert Counter(row["domain"] for row in rows) == {"sums": 15, "general": 5}
    domains = [row["domain"] for row in rows]
    assert domains not in (sorted(domains), sorted(domains, reverse=True))
    card = read_json(tmp_path / "card.json")
    assert card["domains"]["general"]["share_samples"] == 0.25
    assert card["domains"]["general"]["average_rounds"] == 2
    assert card["domains"]["sums"]["average_rounds"] == 1
    assert card["total"]["average_rounds"] == pytest.approx(1.25)


def test_a_judge_decides_only_where_no_rule_can(build):
    problems = [make_problem(7, verifier="judge"), make_problem(8, verifier="judge"), make_problem(9)]
    answers = {
        "p7": [r1("so 3+4=7", "seven"), r1("```", "seven")],
        "p8": [r1("so 3+4=7", "seven"), r1("所以", "seven")],
        "p9": [r1("so", 9), r1("then", 7)],
    }
    asked = []

    def judge(problems, texts):
        asked.append([(each.problem_id, text) for each, text in zip(problems, texts, strict=True)])
        return [Verdict(is_correct=each.problem_id == "p7") for each in problems]

    outcome, rows = build(problems, answers, samples=2, judge=judge)
    said = "The answer is \\boxed{seven}."
    assert asked == [[("p7", said), ("p8", said)]]  # what is unreadable is not worth a question
    assert {row["lineage"]["problem_id"] for row in rows} == {"p7", "p9"}
    assert outcome.summary["dropped"] == {"wrong": 2, "code_block": 1, "language": 1}
    with pytest.raises(RunError, match=r"no_judge 1 \(such as"):
        build(problems[:1], answers, samples=1)


def test_a_filter_that_keeps_nothing_says_so_in_one_sentence(build):
    with pytest.raises(
        RunError, match=r"kept none of 2 samples; dropped were: wrong 2 \(such as '<think>\\nso"
    ):
        build([make_problem(7)], {"p7": [r1("so", 8)]}, samples=2)


TEXTS = [
    r1("so 3+4=7", 7),
    r1("SO 3+4=7", 7),
    r1("then 7", 7),
    r1("so 8", 8),
    r1("所以 7", 7),
    r1("```", 7),
    "7",
    r1("so", 7) + CUT,
]
SECTION = st.fixed_dictionaries(
    {"keep_per_prompt": st.integers(1, 3), "max_domain_ratio": st.sampled_from([1.0, 1.5, 3.0])}
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.lists(st.sampled_from(TEXTS), min_size=1)), max_size=6
    ),
    SECTION,
    st.integers(0, 3),
)
def test_nothing_kept_is_wrong_or_unreadable_and_every_sample_is_accounted_for(
    tmp_path_factory, asked, section, seed
):
    problems = [replace(make_problem(n, task=task), answer="7") for n, (task, _) in enumerate(asked)]
    answers = {f"p{n}": texts for n, (_, texts) in enumerate(asked)}
    directory = tmp_path_factory.mktemp("set")
    good = {TEXTS[0], TEXTS[1], TEXTS[2]}
    if not any(good & set(texts[:4]) for _, texts in asked):
        with pytest.raises(RunError, match="kept none of"):
            build_in(directory, problems, answers, seed=seed, **section)
        return
    outcome, rows = build_in(directory, problems, answers, seed=seed, **section)
    limits = ReadableLimits(min_language=0.99, max_repetition=0.3, max_paragraph_chars=400)
    for row in rows:
        assert R1_SHAPE.extract(answer_of(row)) == "7"
        assert faults(answer_of(row), "en", tokens=0, limits=limits) == ()
    assert outcome.summary["sampled"] == 4 * len(problems)
    assert outcome.summary["kept"] + sum(outcome.summary["dropped"].values()) == outcome.summary["sampled"]
    of_one = Counter(row["lineage"]["problem_id"] for row in rows)
    assert max(of_one.values()) <= section["keep_per_prompt"]
