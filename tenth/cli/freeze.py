"""`tenth freeze RECIPE`: write down the test set before the first reinforcement run.

The file beside the recipe fixes families, levels, prompts and hashes; `eval.problem_file` makes a run refuse
any other.
"""

from pathlib import Path
from typing import Annotated

import typer


def freeze(
    recipe: Annotated[Path, typer.Argument(help="a recipe, such as recipes/tiny/zero.toml")],
) -> None:
    """Fix a recipe's test set in a file beside it."""
    from tenth.base.files import write_json
    from tenth.pipeline.frozen import describe_test_set
    from tenth.pipeline.recipes import read_recipe

    loaded = read_recipe(recipe)
    target = recipe.with_suffix(".problems.json")
    described = describe_test_set(loaded)
    write_json(target, described)
    counts = ", ".join(f"{name} {len(each['prompts'])}" for name, each in described["families"].items())
    typer.echo(f"{target}: hash {described['hash']}; {counts}")
