"""The test set is the same everywhere, and a run with another one stops."""

import json

import pytest

from tenth.base.errors import ConfigError
from tenth.pipeline.frozen import check_test_set, describe_test_set, guess_baselines, held_out_problems
from tenth.pipeline.recipe import FamilySection
from tenth.tasks.task import Split, split_of


def changed(recipe, **levels):
    families = tuple(
        FamilySection(name=each.name, document_levels=each.document_levels, levels=levels[each.name])
        if each.name in levels
        else each
        for each in recipe.families
    )
    return recipe.model_copy(update={"families": families})


def test_every_problem_is_of_its_split_and_distinct(recipe):
    for split in (Split.DEV, Split.TEST):
        problems = held_out_problems(recipe, split)
        assert {split_of(each.problem_id) for each in problems} == {split}
        assert len({each.problem_id for each in problems}) == len(problems) == 2 * 6


def test_levels_come_in_turn(recipe):
    chains = [each.level for each in held_out_problems(recipe) if each.task == "chain_sum"]
    assert chains == [2, 3, 4, 2, 3, 4]


def test_the_runs_seed_does_not_touch_it(recipe):
    other = recipe.model_copy(update={"seed": 99})
    assert held_out_problems(other) == held_out_problems(recipe)


def test_its_hash_never_moves(recipe):
    # Another hash: a family, the split or a random stream has changed, and no two results can be compared.
    assert describe_test_set(recipe)["hash"] == "1c2a228c18691a02"


def test_the_committed_file_says_what_is_asked(recipe):
    described = describe_test_set(recipe)
    chain = described["families"]["chain_sum"]
    assert (chain["levels"], chain["document_levels"]) == ([2, 4], [2, 3])
    assert list(chain["prompts"].values()) == [
        each.prompt for each in held_out_problems(recipe) if each.task == "chain_sum"
    ]


def test_a_test_set_that_is_the_committed_one_passes(recipe, tmp_path):
    path = tmp_path / "problems.json"
    path.write_text(json.dumps(describe_test_set(recipe)))
    check_test_set(recipe, path)


def test_another_test_set_is_refused_with_both_hashes(recipe, tmp_path):
    path = tmp_path / "problems.json"
    path.write_text(json.dumps(describe_test_set(recipe)))
    with pytest.raises(
        ConfigError, match=r"has hash [0-9a-f]{16}, but .*problems.json fixes [0-9a-f]{16}; restore"
    ):
        check_test_set(changed(recipe, modular=(3, 3)), path)


def test_never_reading_the_question_earns_little(recipe):
    baselines = guess_baselines(recipe)
    assert baselines["modular"] == pytest.approx(0.1, abs=0.03)  # ten answers, all as likely
    assert 0 < baselines["chain_sum"] < 0.2


def test_too_few_distinct_problems_are_refused(recipe):
    tiny = changed(recipe, chain_sum=(2, 2), modular=(2, 2)).model_copy(
        update={"eval": recipe.eval.model_copy(update={"problems_per_family": 10_000})}
    )
    with pytest.raises(ConfigError, match=r"no more than about .* distinct test problems"):
        held_out_problems(tiny)
