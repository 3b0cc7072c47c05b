"""The keys of one architecture in a GGUF file, read with care.

Why: they may be missing, or of any type.
In:  a file's keys.  Out: numbers; a sentence for what is none.
Not here: what they mean (gguf_config.py, gguf_rope.py).
"""

from collections.abc import Mapping
from typing import Any

from tenth.base.errors import CheckpointError

Value = int | float | bool | str  # of a key that describes a network


class Keys:
    """The keys of one architecture; a sentence for those that are missing or of another kind."""

    def __init__(self, keys: Mapping[str, Any], architecture: str) -> None:
        self._keys, self.architecture = keys, architecture

    def number(self, key: str, default: Any = None) -> Any:
        """A number; `default` where the key is missing, and a sentence where there is none."""
        name = f"{self.architecture}.{key}"
        value = self._keys.get(name, default)
        if not isinstance(value, int | float):
            wrong = "is missing" if value is None else f"is {str(value)[:40]!r}, no number"
            raise CheckpointError(f"the key '{name}' {wrong}; fetch or convert the file again.")
        return float(f"{value:.7g}") if isinstance(value, float) else value  # 1e-6 was rounded to float32

    def get(self, key: str) -> Any:
        """Whatever stands there, or None."""
        return self._keys.get(f"{self.architecture}.{key}")
