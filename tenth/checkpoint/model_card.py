"""What a reader of a model directory should know, as its README.md: the model card.

Why: weights travel further than the notes of whoever made them, and a licence or a lineage that is not in the
directory is lost with the first copy. The front matter is what model hubs read.
In:  a `ModelCard`: only what is known; whoever saves a model fills in what the run recorded.
Out: Markdown with YAML front matter.
Not here: measuring anything; where the card is stored (model_dir.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CARD = "README.md"  # of the directory
_TAGS = ("tenth", "text-generation")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known of a model. Empty: unknown, and left out."""

    name: str
    licence: str | None = None  # an identifier that hubs know, such as "mit"
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()  # its lineage, a sentence each, first stage first
    cost: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    command: str | None = None
    library: str = "transformers"  # what loads it; "peft": an adapter

    def to_markdown(self) -> str:
        """The text of README.md."""
        parts = [self._front_matter(), f"# {self.name}"]
        if self.stages:
            parts.append("\n".join(["## Lineage", "", *_numbered(self.stages)]))
        if self.datasets:
            parts.append("\n".join(["## Data", "", *(f"- {_line(each)}" for each in self.datasets)]))
        if self.cost:
            parts.append(f"## Cost\n\n{_line(self.cost)}")
        if self.scores:
            rows = [f"| {_cell(what)} | {score:.3f} |" for what, score in self.scores.items()]
            parts.append("\n".join(["## Scores", "", "| measured | score |", "|---|---|", *rows]))
        if self.command:
            parts.append(f"## Command\n\n```\n{_line(self.command)}\n```")
        return "\n\n".join(parts) + "\n"

    def _front_matter(self) -> str:
        """YAML; its strings are written as JSON's, which YAML reads."""
        lines = ["---"]
        for key, value in (("license", self.licence), ("base_model", self.base_model)):
            if value:
                lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
        lines += [f"library_name: {self.library}", "tags:", *(f"- {tag}" for tag in _TAGS), "---"]
        return "\n".join(lines)


def _numbered(sentences: Sequence[str]) -> list[str]:
    return [f"{number}. {_line(each)}" for number, each in enumerate(sentences, start=1)]


def _line(text: str) -> str:
    """Without line breaks, which would end a list or a table."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
