"""What can be known to be wrong before the first step, said before the first step.

Why: a recipe that cannot end well should not train for ten minutes first, nor take the name of a run.
In:  a recipe, and the tokenizer once there is one.  Out: nothing, or one sentence.
Not here: types, ranges and unknown keys (recipe.py), memory and disk (zero.py).
"""

from collections import Counter
from pathlib import Path

from tenth.base.errors import ConfigError
from tenth.base.records import Problem
from tenth.model.config import ModelConfig
from tenth.pipeline.frozen import check_test_set, held_out_problems, recipe_families
from tenth.pipeline.recipe import ZeroRecipe
from tenth.pipeline.settings import model_config
from tenth.rollout.collect import prompt_ids
from tenth.tasks.task import require_level
from tenth.tokenizer.tokenizer import Tokenizer


def check_recipe(recipe: ZeroRecipe, folder: Path) -> None:
    """Families, levels, test set and lengths; `folder` is what the recipe's file names are relative to."""
    _check_families(recipe)
    for model in recipe.models:
        of_model = recipe.model_copy(update={"model": model})
        _check_lengths(of_model, model_config(of_model, vocab_size=recipe.documents.vocab_size))
    held_out_problems(recipe)  # refuses a family that has too few test questions
    if recipe.eval.problem_file:
        check_test_set(recipe, folder / recipe.eval.problem_file)


def check_prompts(recipe: ZeroRecipe, tokenizer: Tokenizer) -> None:
    """That every test question leaves room for an answer of the longest kind."""
    limit = model_config(recipe, vocab_size=tokenizer.vocab_size).max_position_embeddings
    key, answer = max(recipe.answer_lengths.items(), key=lambda each: each[1])

    def length(problem: Problem) -> int:
        return max(len(prompt_ids(problem, tokenizer, template=each)) for each in recipe.templates)

    longest = max(held_out_problems(recipe), key=length)
    if length(longest) + answer > limit:
        raise ConfigError(
            f"a prompt of family '{longest.task}', level {longest.level}, has {length(longest)} tokens, and "
            f"with {key} = {answer} that is more than the {limit} that model '{recipe.model}' takes; lower "
            f"{key} or that family's levels."
        )


def _check_families(recipe: ZeroRecipe) -> None:
    families = recipe_families(recipe)
    twice = [name for name, times in Counter(each.name for each in recipe.families).items() if times > 1]
    if twice:
        raise ConfigError(f"the recipe names family '{twice[0]}' twice; keep one of the entries.")
    for section in recipe.families:
        for level in (*section.document_levels, *section.levels):
            require_level(families[section.name], level)


def _check_lengths(recipe: ZeroRecipe, config: ModelConfig) -> None:
    limit = config.max_position_embeddings
    lengths = {"pretrain.sequence_length": recipe.pretrain.sequence_length, **recipe.answer_lengths}
    for key, length in lengths.items():
        if length > limit:
            raise ConfigError(
                f"{key} = {length}, but model '{recipe.model}' takes {limit} tokens in a row; lower it."
            )
