import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

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


def fields_of(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, default) of every value of the schema, sections opened."""
    defaults = schema.model_construct()
    for name, field in schema.model_fields.items():
        value = getattr(defaults, name, None)
        if isinstance(value, BaseModel):
            yield from ((key, inner) for key, inner in flat(value, f"{prefix}{name}."))
        else:
            yield f"{prefix}{name}", value
        assert not isinstance(field.annotation, UnionType) or value is None or get_args(field.annotation)


def flat(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


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
    schema = dict(fields_of(ZeroRecipe))
    assert keys_in(TEXT, are_off=False) == {key for key, value in schema.items() if value is not None} | OWN
    assert keys_in(TEXT, are_off=True) == {key for key, value in schema.items() if value is None} - OWN


def test_every_value_in_it_is_the_schemas_default():
    recipe = ZeroRecipe.model_validate(tomllib.loads(TEXT))
    assert {key: value for key, value in flat(recipe, "") if key not in OWN} == {
        key: value for key, value in fields_of(ZeroRecipe) if key not in OWN
    }


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
