"""Which story a recipe tells, and so which schema it has.

Why: `tenth run`, `tenth freeze` and whoever else is given a recipe must not ask which kind it is.
In:  a recipe file, or the directory of a run.  Out: the key `flow`; the recipe, checked.
Not here: the schemas (recipe.py, r1_recipe.py), the stories (zero.py, r1.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tenth.base.config import apply_overrides, build_recipe, read_values
from tenth.base.errors import ConfigError, RunError
from tenth.base.files import read_json
from tenth.pipeline.r1_recipe import R1Recipe
from tenth.pipeline.recipe import FlowName, ZeroRecipe
from tenth.pipeline.run_dir import RECIPE

SCHEMAS: Mapping[FlowName, type[ZeroRecipe]] = MappingProxyType(
    {FlowName.ZERO: ZeroRecipe, FlowName.R1: R1Recipe}
)


def flow_name(source: Path, overrides: Sequence[str] = ()) -> FlowName:
    """Its key `flow`; without it, R1-Zero alone."""
    found = _values(source, overrides).get("flow", FlowName.ZERO)
    if found not in tuple(FlowName):
        raise ConfigError(f"{source}: flow = '{found}' is not known; choose one of {', '.join(FlowName)}.")
    return FlowName(found)


def read_recipe(source: Path, overrides: Sequence[str] = ()) -> ZeroRecipe:
    """The recipe, whichever story it tells."""
    schema = SCHEMAS[flow_name(source, overrides)]
    return build_recipe(schema, _values(source, overrides), source=str(source))


def saved_values(run_dir: Path) -> dict[str, Any]:
    """The recipe that is saved with a run; a RunError if there is no run."""
    path = run_dir / RECIPE
    if not path.exists():
        raise RunError(f"{run_dir} holds no run: recipe.json is missing; name a recipe file to begin one.")
    values = read_json(path)
    if not isinstance(values, dict):
        raise RunError(f"{path} holds no settings; restore it, or begin another run from the recipe file.")
    return values


def _values(source: Path, overrides: Sequence[str]) -> dict[str, Any]:
    return apply_overrides(saved_values(source) if source.is_dir() else read_values(source), overrides)
