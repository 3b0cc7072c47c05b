"""Plain values as JSON and back: what judge and candidate tell each other.

Why: whatever comes from a candidate has to be data. A pickle is a program, and an object that comes with
its own `==` can equal anything; so a value that arrives is made anew from Python's own plain types.
In:  a value, and what to do with all others (`refer`).  Out: JSON-able data; the inverse.
Subclasses of a plain type (a named tuple, a Counter) arrive as the plain type.
"""

import builtins
import math
from collections.abc import Callable
from typing import Any

_MAX_DECIMAL_BITS = 8192  # longer whole numbers travel in hexadecimal: Python refuses to print them
_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}
_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
    """JSON-able data; what is not plain becomes {"remote": refer(value)}."""
    if value is None or isinstance(value, bool):
        return value
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value, refer)
    if isinstance(value, type) and _TYPES.get(value.__name__) is value:
        return {"type": value.__name__}
    return {"remote": refer(value)}


def decode(data: Any, refer: Callable[[Any], Any]) -> Any:
    """The value. ValueError or TypeError for what `encode` would not have written."""
    if isinstance(data, list):
        return [decode(item, refer) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ValueError("a tagged value has one tag")
    ((tag, content),) = data.items()
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](decode(item, refer) for item in content)
    if tag == "dict":
        return {decode(key, refer): decode(value, refer) for key, value in content}
    if tag == "remote":
        return refer(content)
    if tag == "type" and content in _TYPES:
        return _TYPES[content]
    if tag in _READERS and isinstance(content, str):
        return _READERS[tag](content)
    raise ValueError(f"no such tag: {tag!r:.40}")


def exception_named(name: Any, message: Any) -> Exception:
    """The built-in exception of that name, a RuntimeError for any other."""
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RuntimeError(f"{name}: {message}"[:500])
    try:
        return kind(str(message)[:500])
    except TypeError:  # UnicodeDecodeError and its kin take five arguments
        return RuntimeError(f"{name}: {message}"[:500])


def _write_int(value: int, _: object) -> Any:
    value = int(value)
    return value if value.bit_length() <= _MAX_DECIMAL_BITS else {"int": hex(value)}


def _write_float(value: float, _: object) -> Any:
    value = float(value)
    return value if math.isfinite(value) else {"float": repr(value)}


def _write_sequence(tag: str) -> Callable[[Any, Callable[[Any], Any]], Any]:
    return lambda value, refer: {tag: [encode(item, refer) for item in value]}


_WRITERS: tuple[tuple[type, Callable[[Any, Callable[[Any], Any]], Any]], ...] = (
    (str, lambda value, _: str(value)),
    (int, _write_int),
    (float, _write_float),
    (complex, lambda value, _: {"complex": repr(complex(value))}),
    (bytes, lambda value, _: {"bytes": value.hex()}),
    (list, lambda value, refer: [encode(item, refer) for item in value]),
    (tuple, _write_sequence("tuple")),
    (set, _write_sequence("set")),
    (frozenset, _write_sequence("frozenset")),
    (
        dict,
        lambda value, refer: {
            "dict": [[encode(key, refer), encode(item, refer)] for key, item in value.items()]
        },
    ),
)
_READERS: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "complex": complex,
    "bytes": bytes.fromhex,
}
