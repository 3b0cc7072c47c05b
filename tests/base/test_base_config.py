from pathlib import Path

import pytest
from pydantic import Field

from tenth.base.config import Section, build_recipe, dump_recipe, load_recipe
from tenth.base.errors import ConfigError


class Optim(Section):
    lr: float = Field(0.1, gt=0)


class Family(Section):
    name: str
    levels: tuple[int, int] = (1, 2)


class Recipe(Section):
    name: str = "x"
    steps: int = 5
    optim: Optim = Optim()
    spare: Optim | None = None
    families: tuple[Family, ...] = ()


def written(directory: Path, text: str) -> Path:
    path = directory / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def sentence_of(directory: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(Recipe, written(directory, text), overrides)
    return str(caught.value).replace(str(directory), "DIR")


def test_values_come_from_the_file_and_the_rest_from_the_schema(tmp_path):
    recipe = load_recipe(Recipe, written(tmp_path, "steps = 7\n[[families]]\nname = 'gcd'\nlevels = [2, 4]"))
    assert recipe == Recipe(steps=7, families=(Family(name="gcd", levels=(2, 4)),))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps=9", Recipe(steps=9)),
        ("optim.lr=1e-3", Recipe(optim=Optim(lr=0.001))),
        ("name=plain", Recipe(name="plain")),  # text needs no quotes
        ("name='a b'", Recipe(name="a b")),
        ("families=[{name='gcd'}]", Recipe(families=(Family(name="gcd"),))),
    ],
)
def test_an_override_replaces_one_value(tmp_path, override, expected):
    assert load_recipe(Recipe, written(tmp_path, "steps = 5"), [override]) == expected


def test_the_later_override_wins(tmp_path):
    assert load_recipe(Recipe, written(tmp_path, ""), ["steps=1", "steps=2"]).steps == 2


def test_a_dumped_recipe_builds_the_same_recipe():
    recipe = Recipe(families=(Family(name="gcd"),), spare=Optim(lr=2))
    assert build_recipe(Recipe, dump_recipe(recipe), source="again") == recipe


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().steps = 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("step = 3", "DIR/recipe.toml: unknown key 'step'; did you mean 'steps'?"),
        ("[optim]\nlrr = 1", "DIR/recipe.toml: unknown key 'optim.lrr'; did you mean 'lr'?"),
        ("[spare]\nlx = 1", "DIR/recipe.toml: unknown key 'spare.lx'; did you mean 'lr'?"),
        (
            "[[families]]\nname = 'gcd'\nlevel = [1, 2]",
            "DIR/recipe.toml: unknown key 'families.0.level'; did you mean 'levels'?",
        ),
        ("[[families]]\nzzz = 1\nname = 'a'", "unknown key 'families.0.zzz'; known here: levels, name."),
        ("[[families]]\nlevels = [1, 2]", "DIR/recipe.toml: 'families.0.name' is missing; add it."),
        ("[optim]\nlr = 0", "DIR/recipe.toml: optim.lr = 0: Input should be greater than 0"),
        ("steps = 'many'", "DIR/recipe.toml: steps = 'many': Input should be a valid integer"),
        ("steps = ", "DIR/recipe.toml is not valid TOML: Invalid value"),
    ],
)
def test_a_wrong_recipe_is_one_sentence_with_the_place(tmp_path, text, sentence):
    assert sentence in sentence_of(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("steps", "override 'steps' is not key=value; write it like seed=2."),
        ("=3", "override '=3' is not key=value"),
        ("steps.more=3", "override 'steps.more=3': 'steps' is a value, not a section."),
        ("stepz=3", "unknown key 'stepz'; did you mean 'steps'?"),
    ],
)
def test_a_wrong_override_is_one_sentence(tmp_path, override, sentence):
    assert sentence in sentence_of(tmp_path, "steps = 5", override)


def test_a_missing_recipe_names_the_command_that_writes_one(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.toml is neither a recipe nor a run; `tenth init` writes"):
        load_recipe(Recipe, tmp_path / "no.toml")


def test_a_directory_or_bytes_that_are_not_text_are_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="could not read recipe"):
        load_recipe(Recipe, tmp_path)
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_recipe(Recipe, tmp_path / "a.toml")
