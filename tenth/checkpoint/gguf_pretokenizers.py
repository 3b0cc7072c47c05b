"""How byte-level vocabularies cut a text into words, by the names that llama.cpp knows them under.

Why: a GGUF file does not hold the regular expressions of a tokenizer.json. It holds a name, and llama.cpp has
the expressions of each name built in; a vocabulary under a wrong name splits texts otherwise than the model
was trained on, and nobody notices. So a name is only given where the expressions are the same.
In:  a parsed tokenizer.json; or a name.  Out: a `Cut`.
Not here: the vocabulary itself, and what becomes of our own cut, which has no name (gguf_vocabulary.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_QWEN2, _LLAMA3 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}", r"\p{N}{1,3}")
)
# Published as ranges of the letters that have two cases.
_DEEPSEEK_WORD = (
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕ"
    r"Ἐ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤ"
    r"Ⳬ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
_DEEPSEEK_MARKS = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"
_DEEPSEEK_CJK = r"[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK_V3 = (
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A way to cut texts, as llama.cpp has it built in."""

    name: str  # tokenizer.ggml.pre
    patterns: tuple[str, ...]  # each splits what the ones before it left
    ignores_merges: bool = False  # a word that is a token becomes it, whatever the merges say
    starts_with_bos: bool = False  # what models with this cut were trained on
    normalizer: str | None = None  # of its vocabularies; llama.cpp itself has none


_CUTS = (
    Cut(name="deepseek-v3", patterns=(r"\p{N}{1,3}", *_DEEPSEEK_V3), starts_with_bos=True),
    Cut(
        name="deepseek-llm",
        patterns=(r"[\r\n]", _DEEPSEEK_WORD, _DEEPSEEK_MARKS, r"\s+$", _DEEPSEEK_CJK, r"\p{N}"),
        starts_with_bos=True,
    ),
    Cut(  # llama.cpp's own spelling: the vocabulary has no token of two digits, so it is the same
        name="deepseek-llm",
        patterns=(r"[\r\n]", _DEEPSEEK_WORD, _DEEPSEEK_MARKS, r"\s+$", _DEEPSEEK_CJK, r"\p{N}+"),
        starts_with_bos=True,
    ),
    Cut(
        name="deepseek-coder",
        patterns=(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}"),
        starts_with_bos=True,
    ),
    Cut(name="qwen2", patterns=(_QWEN2,), normalizer="NFC"),
    Cut(name="llama-bpe", patterns=(_LLAMA3,), ignores_merges=True, starts_with_bos=True),
    Cut(name="smaug-bpe", patterns=(_LLAMA3,)),  # the same expression, but merges count
    Cut(name="gpt-2", patterns=(_GPT2,)),
    Cut(name="starcoder", patterns=(r"\p{N}", _GPT2)),
)
_OTHER_NAMES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}


def cut_of(spec: Mapping[str, Any]) -> Cut | None:
    """The cut of a byte-level tokenizer.json, if llama.cpp knows it."""
    patterns = _patterns(spec.get("pre_tokenizer"))
    ignores_merges = bool(spec["model"].get("ignore_merges", False))
    for cut in _CUTS:
        if cut.patterns == patterns and cut.ignores_merges == ignores_merges:
            return cut
    return None


def cut_named(name: str) -> Cut | None:
    """The cut that a GGUF file names."""
    wanted = _OTHER_NAMES.get(name, name)
    return next((cut for cut in _CUTS if cut.name == wanted), None)


def known_names() -> tuple[str, ...]:
    """Of all cuts."""
    return tuple(dict.fromkeys(cut.name for cut in _CUTS))


def _patterns(pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The expressions of a pre-tokenizer, one after the other; one that is not known stands as a mark."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer] if pre_tokenizer else [])
    return tuple(pattern for step in steps for pattern in _step_patterns(step))


def _step_patterns(step: Mapping[str, Any]) -> tuple[str, ...]:
    if step["type"] == "Split":
        is_plain = step.get("behavior") == "Isolated" and not step.get("invert", False)
        pattern = step.get("pattern", {}).get("Regex")
        if is_plain and pattern is not None:
            return (pattern.replace("\r", r"\r").replace("\n", r"\n"),)
    if step["type"] == "Digits":
        return (r"\p{N}" if step.get("individual_digits") else r"\p{N}+",)
    if step["type"] == "ByteLevel" and not step.get("add_prefix_space", False):
        return (_GPT2,) if step.get("use_regex", True) else ()
    return (f"?{step['type']}",)
