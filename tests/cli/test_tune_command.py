"""What `--help` of `tenth rl` and `tenth sft` says of their keys, against the recipes themselves."""

import subprocess
import sys

import pytest
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from tenth.cli import main
from tenth.cli.tune_command import default_keys
from tenth.pipeline.tune_recipe import RlRecipe, SftRecipe


@pytest.mark.parametrize("recipe", [RlRecipe, SftRecipe])
def test_the_keys_and_their_defaults_are_the_recipes(recipe):
    expected = {
        name: "" if field.default in (None, ()) else str(field.default).lower()
        for name, field in recipe.model_fields.items()
        if field.default is not PydanticUndefined
    }
    assert default_keys(recipe.__name__) == expected


@pytest.mark.parametrize(("kind", "key"), [("rl", "num_generations=8"), ("sft", "warmup_ratio=0.03")])
def test_help_lists_the_keys(kind, key):
    text = CliRunner().invoke(main.commands, [kind, "--help"]).stdout
    assert key in text
    assert ("accuracy_weight is of a right answer" in " ".join(text.split())) is (kind == "rl")


def test_help_does_not_import_torch():
    code = (
        "import sys; from tenth.cli.main import commands\n"
        "try: commands(['rl', '--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
