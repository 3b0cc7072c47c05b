import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from tenth.base.config import load_recipe
from tenth.base.errors import ConfigError
from tenth.cli.init import recipe_text
from tenth.cli.main import commands
from tenth.pipeline.recipe import ZeroRecipe
from tenth.tasks.generated import FAMILIES

TEXT = recipe_text(Path("my-run.toml"))
OWN = {"name", "families"}  # these have no default


def values_in(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value, sections opened; None for one that has no default."""
    for name in type(section).model_fields:
        value = getattr(section, name, None)
        if isinstance(value, BaseModel):
            yield from values_in(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


DEFAULTS = dict(values_in(ZeroRecipe.model_construct()))


def keys_in(text: str, *, are_off: bool) -> set[str]:
    """Dotted keys of the lines `key = ...`, or of the lines `# key = ...`."""
    keys, section = set(), ""
    for line in text.splitlines():
        if header := re.match(r"\[([\w.]+)\]", line):
            section = header[1] + "."
        elif key := re.match(r"# (\w+) = " if are_off else r"(\w+) = ", line):
            keys.add(section + key[1])
    return keys


def test_the_written_recipe_loads(tmp_path):
    path = tmp_path / "my-run.toml"
    done = CliRunner().invoke(commands, ["init", str(path)])
    assert done.exit_code == 0
    assert done.stdout.strip() == f"{path} is written; change it and run: tenth run {path}"
    recipe = load_recipe(ZeroRecipe, path)
    assert recipe.name == "my-run"
    assert all(section.name in FAMILIES for section in recipe.families)


def test_every_key_of_the_schema_is_in_it_and_no_other():
    off = {key for key, value in DEFAULTS.items() if value is None} - OWN  # TOML has no word for "none"
    assert keys_in(TEXT, are_off=True) == off
    assert keys_in(TEXT, are_off=False) == DEFAULTS.keys() - off


def test_every_value_in_it_is_the_schemas_default():
    recipe = ZeroRecipe.model_validate(tomllib.loads(TEXT))
    assert {**dict(values_in(recipe)), **dict.fromkeys(OWN)} == DEFAULTS


def test_a_line_that_is_off_works_when_it_is_turned_on():
    on = re.sub(r"^# (\w+ = )", r"\1", TEXT, flags=re.MULTILINE)
    recipe = ZeroRecipe.model_validate(tomllib.loads(on))
    assert recipe.rl.epsilon_high == 0.28
    assert recipe.eval.problem_file == "zero.problems.json"


def test_a_name_with_quotes_is_still_a_recipe():
    assert tomllib.loads(recipe_text(Path('a"b\\c 中.toml')))["name"] == 'a"b\\c 中'


def test_an_existing_file_is_never_overwritten(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("precious")
    done = CliRunner().invoke(commands, ["init", str(path)])
    assert isinstance(done.exception, ConfigError)
    assert path.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_where_nothing_can_be_written_is_one_sentence():
    done = CliRunner().invoke(commands, ["init", "/proc/x.toml"])
    assert "could not write" in str(done.exception)
