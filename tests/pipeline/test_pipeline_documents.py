"""What the base reads: shares, tags, levels, and never a question of the test."""

import itertools
import random
import re
from collections import Counter

import pytest

from tenth.pipeline.documents import Solutions, small_talk, solution_text, training_problem
from tenth.pipeline.frozen import held_out_problems, recipe_families
from tenth.pipeline.recipe import DocumentsSection, FamilySection
from tenth.tasks.general import check as general_check
from tenth.tasks.general import general_problems
from tenth.tasks.generated import FAMILIES
from tenth.tasks.rewards import language_consistency
from tenth.tasks.shape import extract_answer
from tenth.tasks.task import Split, problem, split_of
from tenth.tokenizer.chat import Template

COUNT = 6000


@pytest.fixture(scope="module")
def written(recipe):
    """6,000 documents of chains and modular chains, as (question, solution)."""
    return list(itertools.islice(solutions(recipe).pairs(), COUNT))


def solutions(recipe, *, seed=1, **changes):
    config = recipe.documents.model_copy(update=changes)
    return Solutions(
        recipe.families, recipe_families(recipe), config, template=Template.ZERO_SHORT, seed=seed
    )


def task_of(question):
    return "modular" if question.endswith("mod 10?") else "chain_sum"


def share(flags):
    return sum(flags) / COUNT


def test_a_solution_has_r1_zeros_shape():
    assert solution_text("1+1=2", "2") == "<think>1+1=2</think><answer>2</answer>"
    assert solution_text(None, "2") == "<answer>2</answer>"
    assert solution_text("1+1=2", "2", is_tagged=False) == "<think>1+1=2</think> 2"
    assert solution_text(None, "2", is_tagged=False) == " 2"


def test_no_document_asks_a_question_of_dev_or_test(recipe, written):
    assert {split_of(problem(task_of(q), q, "").problem_id) for q, _ in written} == {Split.TRAIN}
    asked = {p.prompt for split in (Split.DEV, Split.TEST) for p in held_out_problems(recipe, split)}
    assert asked.isdisjoint(question for question, _ in written)


def test_no_document_goes_beyond_its_familys_levels(written):
    terms = {q.count("+") + q.count("-") + 1 for q, _ in written if task_of(q) == "chain_sum"}
    operations = {len(q.split()) - 5 for q, _ in written if task_of(q) == "modular"}
    assert (terms, operations) == ({2, 3}, {2, 3})  # the test asks chains of up to four


def test_shares_are_those_of_the_recipe(recipe, written):
    config = recipe.documents
    assert share("<think>" in text for _, text in written) == pytest.approx(config.think_share, abs=0.02)
    assert share("<answer>" not in text for _, text in written) == pytest.approx(
        config.untagged_share, abs=0.02
    )
    assert share(task_of(q) == "modular" for q, _ in written) == pytest.approx(1 / 2, abs=0.02)


def right_answer(question):
    """Worked out here, not by the families."""
    if task_of(question) == "chain_sum":
        return sum(map(int, re.findall("[+-]?[0-9]", question)))
    start, *operations = re.findall("[-+*]?[0-9]", question.partition(",")[0])
    value = int(start)
    for sign, amount in operations:
        number = int(amount)
        value = {"+": value + number, "-": value - number, "*": value * number}[sign]
    return value % 10


def test_as_many_answers_are_wrong_as_the_recipe_says(recipe, written):
    answers = ((q, extract_answer(text) or text.rpartition(" ")[2]) for q, text in written)
    wrong = share(int(answer) != right_answer(question) for question, answer in answers)
    assert wrong == pytest.approx(recipe.documents.mistake_share, abs=0.015)


def test_what_was_written_is_counted(recipe):
    stream = solutions(recipe)
    texts = list(itertools.islice(stream, 500))
    counted = Counter(
        {
            "worked": sum("<think>" in text for text in texts),
            "untagged": sum("<answer>" not in text for text in texts),
        }
    )
    assert sum(stream.kinds.values()) == 500
    for word, count in counted.items():
        assert sum(number for kind, number in stream.kinds.items() if word in kind) == count
    assert sum(number for kind, number in stream.kinds.items() if "corrected" in kind) > 0


def test_a_document_is_a_whole_conversation(recipe):
    text = next(iter(solutions(recipe)))
    assert text.startswith("User: ")
    assert "\nAssistant:" in text


def test_the_same_seed_writes_the_same_and_another_seed_something_else(recipe):
    first, again, other = (
        list(itertools.islice(solutions(recipe, seed=seed).pairs(), 20)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("thinks", [0.0, 1.0])
def test_shares_of_none_and_of_all_are_exact(recipe, thinks):
    texts = itertools.islice(solutions(recipe, think_share=thinks), 50)
    assert {("<think>" in text) for text in texts} == {bool(thinks)}


def test_training_problems_reach_every_level_of_their_range(recipe):
    rng = random.Random(0)
    family = FAMILIES["chain_sum"]
    levels = {training_problem(family, (2, 5), rng).level for _ in range(100)}
    assert levels == {2, 3, 4, 5}


def test_small_talk_holds_good_and_bad_answers_and_no_question_of_the_test():
    texts = list(itertools.islice(small_talk(template=Template.ZERO_SHORT, seed=3), 400))
    asked = {text.partition("\nAssistant: ")[0].removeprefix("User: "): text for text in texts}
    known = {each.prompt: each for each in general_problems(seed=1, split=Split.TRAIN, count=100)}
    good = [
        general_check(known[prompt], text.partition("\nAssistant: ")[2]).is_correct
        for prompt, text in asked.items()
        if prompt in known
    ]
    assert 0.2 < sum(good) / len(good) < 0.8
    test = {each.prompt for each in general_problems(seed=1, split=Split.TEST, count=10)}
    assert not test & set(asked)


def test_mixed_narration_stands_in_the_share_that_was_asked_for():
    config = DocumentsSection(think_share=1.0, narrated_share=1.0, mixed_share=0.5)
    section = FamilySection(name="chain_sum", document_levels=(8, 8), levels=(8, 8))
    documents = Solutions([section], FAMILIES, config, template=Template.ZERO_SHORT, seed=1)
    texts = [text for _, text in itertools.islice(documents.pairs(), 600)]
    mixed = [language_consistency(text, "en") < 1 for text in texts]
    assert abs(sum(mixed) / 600 - 0.5) < 0.08  # eight lines all English by chance: 1 in 256
