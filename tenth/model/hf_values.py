"""One value of a parsed config.json, checked: present, of the right type, of a size that can be meant.

Why: the file comes from anywhere, and a wrong number in it must end as a sentence that names the key, not as
a network that cannot be allocated or computes something else.
In:  the parsed JSON, a key.  Out: the value, or a ConfigError. Not here: what the keys mean (hf_config.py).
"""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from tenth.base.errors import ConfigError

# Larger than any size of a network that was ever published; a damaged file holds larger ones.
MOST_INT, MOST_FLOAT = 1 << 31, 1e15

T = TypeVar("T", int, float, bool, str, dict)


def read_value(
    values: Mapping[str, Any],
    key: str,
    kind: type[T],
    default: Any = None,
    *,
    least: int = 1,
    most: int = MOST_INT,
) -> T:
    """values[key] as `kind`; `default` None: the key must be there. Integers lie between `least` and `most`,
    floats are finite and not negative."""
    value = values.get(key)
    if value is None:
        value = default
    if value is None:
        raise ConfigError(f"config.json: '{key}' is missing; restore the file that came with the checkpoint.")
    if kind is float and type(value) is int:
        value = float(value) if abs(value) <= MOST_FLOAT else math.inf
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"config.json: {key} = {value!r} should be of type {kind.__name__}; mend the file.")
    bounds = {int: (least, most), float: (0, MOST_FLOAT)}.get(kind)
    if bounds and not bounds[0] <= value <= bounds[1]:  # type: ignore[operator]
        raise ConfigError(
            f"config.json: {key} = {value!r} should lie between {bounds[0]} and {bounds[1]}; mend the file."
        )
    return value
