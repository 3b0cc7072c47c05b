"""Words that show a model looking back at its own reasoning, counted per 1,000 tokens.

R1 (arXiv:2501.12948v2, appendix C) counts reflective words over training; the list is theirs in spirit, with
the Chinese ones that our documents can contain.
"""

import re

_REFLECTION = re.compile(
    r"\b(?:wait|mistake|however|but|retry|error|verify|wrong|evaluate|check|actually|again)\b|等等|检查|错|重新",
    re.IGNORECASE,
)


def count_reflection_words(text: str) -> int:
    """How often a text looks back."""
    return len(_REFLECTION.findall(text))


def reflection_per_1k(texts: list[str], *, num_tokens: int) -> float:
    """Reflection words per 1,000 tokens of these texts."""
    return 1000 * sum(map(count_reflection_words, texts)) / max(1, num_tokens)
