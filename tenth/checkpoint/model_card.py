"""What a reader of a model directory should know, as its README.md: the model card.

Why: weights travel further than the notes of whoever made them, and a licence or a lineage that is not in the
directory is lost with the first copy. The front matter is what model hubs read.
In:  a `ModelCard`: only what is known; whoever saves a model fills in what the run recorded.
Out: Markdown with YAML front matter.
Not here: measuring anything; where the card is stored (model_dir.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

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

    def to_markdown(self) -> str:
        """The text of README.md."""
        raise NotImplementedError
