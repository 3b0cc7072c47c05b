"""The test set, fixed before the first reinforcement run: families, levels and the hash of every question.

Why: a test set that could be redrawn could be chosen. The file is committed; a run whose test set differs
from it stops.
In:  a recipe.  Out: the problems of a split; a JSON-able description of the test set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenth.base.errors import ConfigError
from tenth.base.files import read_json, text_hash
from tenth.base.records import Problem
from tenth.pipeline.recipe import ZeroRecipe
from tenth.tasks.file_family import FileFamily
from tenth.tasks.generated import FAMILIES
from tenth.tasks.task import Family, Split, guess_baseline, sample_problems

_SEED = 20_250_120  # of the test set alone; no run's seed touches it


def recipe_families(recipe: ZeroRecipe) -> Mapping[str, Family]:
    """The families that the recipe names; an unknown one is refused with the known ones."""
    unknown = [section.name for section in recipe.families if section.name not in FAMILIES]
    if unknown:
        raise ConfigError(
            f"there is no problem family '{unknown[0]}'; known are {', '.join(sorted(FAMILIES))}."
        )
    files = {path: FileFamily(Path(path)) for path in recipe.problem_files}
    return {section.name: FAMILIES[section.name] for section in recipe.families} | files


def held_out_problems(recipe: ZeroRecipe, split: Split = Split.TEST) -> list[Problem]:
    """Distinct problems of the split, the same for every run of the recipe, all levels in turn."""
    families, problems = recipe_families(recipe), []
    for section in recipe.asked:
        levels = list(range(section.levels[0], section.levels[1] + 1))
        problems += sample_problems(
            families[section.name],
            levels=levels,
            split=split,
            count=recipe.eval.problems_per_family,
            seed=_SEED,
        )
    return problems


def describe_test_set(recipe: ZeroRecipe) -> dict[str, Any]:
    """What the committed file holds."""
    problems, known = held_out_problems(recipe), recipe_families(recipe)
    families = {}
    for section in recipe.asked:
        members = [problem for problem in problems if problem.task == known[section.name].name]
        families[known[section.name].name] = {
            "document_levels": list(section.document_levels),
            "levels": list(section.levels),
            "prompts": {problem.problem_id: problem.prompt for problem in members},
            "hash": _hash(members),
        }
    return {"families": families, "hash": _hash(problems)}


def check_test_set(recipe: ZeroRecipe, path: Path) -> None:
    """Refuse a test set that is not the committed one."""
    committed, found = read_json(path)["hash"], _hash(held_out_problems(recipe))
    if committed != found:
        raise ConfigError(
            f"the test set of recipe '{recipe.name}' has hash {found}, but {path} fixes {committed}; "
            "restore the families, levels and counts, or name another eval.problem_file."
        )


def guess_baselines(recipe: ZeroRecipe) -> dict[str, float]:
    """family -> what never reading the question earns."""
    families = recipe_families(recipe)
    return {
        families[section.name].name: guess_baseline(
            families[section.name],
            levels=list(range(section.levels[0], section.levels[1] + 1)),
            split=Split.TEST,
            seed=_SEED,
        )
        for section in recipe.asked
    }


def _hash(problems: Sequence[Problem]) -> str:
    return text_hash(*(problem.problem_id for problem in problems))
