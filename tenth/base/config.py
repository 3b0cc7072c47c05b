"""A TOML recipe plus `key=value` overrides becomes one frozen, checked model.

Why: one way to configure. The schema is a pydantic model (unknown keys refused), the values are a TOML
file, the command line overrides single keys, and the resolved whole is saved beside the run.
"""

import copy
import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from tenth.base.errors import ConfigError


class Section(BaseModel):
    """The base of every recipe section: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


def load_recipe(schema: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Read `path`, apply overrides like `grpo.steps=20`, validate. Every failure is one sentence."""
    return build_recipe(schema, apply_overrides(read_values(path), overrides), source=str(path))


def read_values(path: Path) -> dict[str, Any]:
    """A recipe's values as they stand in its file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is neither a recipe nor a run; `tenth init` writes a recipe to start from, `tenth runs` "
            "lists the runs."
        ) from error
    except OSError as error:
        raise ConfigError(f"could not read recipe {path}: {error.strerror}; name a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not valid TOML: {error}; mend that place.") from error


def build_recipe(schema: type[S], values: dict[str, Any], *, source: str) -> S:
    """Validate plain values against the schema; name the first thing that is wrong."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_first_sentence(schema, error, source=source)) from error


def dump_recipe(recipe: Section) -> dict[str, Any]:
    """The resolved recipe as plain JSON values."""
    return json.loads(recipe.model_dump_json())


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of plain recipe values with `section.key=value` overrides written in."""
    changed = copy.deepcopy(values)
    for override in overrides:
        _apply(changed, override)
    return changed


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override '{override}' is not key=value; write it like seed=2.")
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"override '{override}': '{section}' is a value, not a section.")
    values[last] = _parse_value(text)


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _first_sentence(schema: type[BaseModel], error: ValidationError, *, source: str) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _fields_at(schema, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(sorted(known))}."
        return f"{source}: unknown key '{where}'; {hint}"
    if first["type"] == "missing":
        return f"{source}: '{where}' is missing; add it."
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
    if where and message.startswith(f"{first['loc'][-1]} = "):  # it has said so itself
        return f"{source}: {where.removesuffix(str(first['loc'][-1]))}{message}"
    return f"{source}: {where}{shown}: {message}" if where else f"{source}: {message}"


def _fields_at(schema: Any, location: Sequence[Any]) -> list[str]:
    for part in location:
        field = _section_of(schema).model_fields.get(part) if isinstance(part, str) else None
        schema = field.annotation if field else schema
    return list(_section_of(schema).model_fields)


def _section_of(annotation: Any) -> type[BaseModel]:
    """The section inside an annotation: itself, or what `tuple[Section, ...]` and `Section | None` hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((_section_of(part) for part in get_args(annotation) if part is not Ellipsis), BaseModel)
