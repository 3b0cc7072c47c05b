"""From names in a recipe to the numbers they stand for."""

from dataclasses import replace

from tenth.model.config import ModelConfig
from tenth.model.presets import preset
from tenth.pipeline.recipe import ZeroRecipe

_MULTIPLE = 16  # rows of embedding and head: whole vectors for the matrix library


def model_config(recipe: ZeroRecipe, *, vocab_size: int) -> ModelConfig:
    """The preset with the vocabulary that the tokenizer really has, rounded up."""
    return replace(preset(recipe.model), vocab_size=rounded_vocabulary(vocab_size))


def rounded_vocabulary(vocab_size: int) -> int:
    """Rows of an embedding for so many tokens."""
    return -(-vocab_size // _MULTIPLE) * _MULTIPLE
