"""In which language a text is written: IFEval's `language` and `change_case` instructions ask.

Why a library: twenty-two languages, of which some share a script, are a trained classifier's work. py3langid
takes 5 MB, needs numpy alone, answers in under a millisecond and says the same each time.
In:  a text.  Out: an ISO 639-1 code, or None where the text has no letters.
"""

import functools
import unicodedata
from typing import Any

MAX_CHARS = 20_000  # nobody needs more to tell, and a flood must not cost time
MIN_SHARE = 0.01  # of the probability, which makes a language possible
FEW_WORDS = 3

# Those that IFEval asks for, and the larger ones that they are mistaken for. With all 97 that the classifier
# knows, a short English line passes for Breton.
LANGUAGES = (
    *("ar", "bg", "bn", "de", "en", "es", "fa", "fi", "fr", "gu", "hi", "id", "it", "ja", "kn", "ko"),
    *("mr", "ne", "nl", "pa", "pl", "pt", "ru", "sv", "sw", "ta", "te", "th", "tr", "uk", "ur", "vi", "zh"),
)


def detect_language(text: str) -> str | None:
    """The likeliest language of a text; None where it has no letters. The case of letters does not matter."""
    text = text[:MAX_CHARS].lower()
    if not any(unicodedata.category(char).startswith("L") for char in text):
        return None
    return _identifier().classify(text)[0]


def is_language(text: str, language: str) -> bool:
    """Whether a text may pass for that language: its likeliest one, or, in so few words that nobody could
    tell, a possible one. Text without letters passes, as in the official checker."""
    found = detect_language(text)
    if found is None or found == language:
        return True
    shares = dict(_identifier().rank(text[:MAX_CHARS].lower()))
    return len(text.split()) <= FEW_WORDS and shares.get(language, 0.0) >= MIN_SHARE


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier
