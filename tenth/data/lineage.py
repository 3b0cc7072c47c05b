"""Where synthetic rows come from: which model, asked what, judged by what, filtered how.

Why: a set that a model wrote inherits that model's faults, and sometimes its licence; whoever trains on it
must be able to say so.
In:  items; a row's `lineage` is an object with model, prompt, verifier and filters.
Out: counts. Nothing is dropped here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tenth.data.user_rows import Item

LINEAGE_FIELDS = {
    "model": ("model",),
    "prompt": ("prompt",),
    "verifier": ("verifier",),
    "filters": ("filters", "filter"),
}
_CLAIMS = ("synthetic", "is_synthetic", "generated", "generated_by", "teacher", "distilled_from")
_MODELS = 50  # named in a card


@dataclass(kw_only=True)
class Lineage:
    """Counts of rows that a model wrote."""

    num_with: int = 0
    num_without: int = 0  # claim to be synthetic
    models: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)  # parts of a lineage
    examples: list[str] = field(default_factory=list)  # places of those without

    def add(self, item: Item) -> None:
        """One more row."""
        lineage = item.values.get("lineage")
        if isinstance(lineage, Mapping) and lineage:
            self.num_with += 1
            self.models[str(lineage.get("model") or "unknown")[:80]] += 1
            for name, columns in LINEAGE_FIELDS.items():
                self.missing[name] += all(lineage.get(column) in (None, "") for column in columns)
        elif lineage is not None or any(_is_claim(item.values, name) for name in _CLAIMS):
            self.num_without += 1
            self.examples = [*self.examples, item.place][:3]

    def shown(self) -> dict[str, Any]:
        """As plain values."""
        models = sorted(self.models.items(), key=lambda pair: (-pair[1], pair[0]))[:_MODELS]
        return {
            "with_lineage": self.num_with,
            "without_lineage": self.num_without,
            "models": dict(models),
            "missing": {name: count for name, count in sorted(self.missing.items()) if count},
        }


def _is_claim(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    return value not in (None, False, "", 0, "false", "False", "no")
