"""Fill-in-the-middle: a document told as prefix, suffix, middle, so that the model learns to insert.

Why: DeepSeek-V3 (arXiv:2412.19437, section 4.1) does so with one document in ten, in PSM order:
`<fim begin> prefix <fim hole> suffix <fim end> middle <end>`. The draw depends on the document and the seed
only, so a resumed or reordered corpus makes the same choice.
"""

from collections.abc import Sequence

from tenth.base.errors import ConfigError
from tenth.base.files import text_hash
from tenth.base.seeds import stream_random
from tenth.tokenizer.special import FIM_BEGIN, FIM_END, FIM_HOLE
from tenth.tokenizer.tokenizer import Tokenizer


def cut_document(text: str, *, rate: float, seed: int) -> tuple[str, ...]:
    """(text,) for most documents; (prefix, middle, suffix), cut at two uniform places, for `rate` of them."""
    if not 0 <= rate <= 1:
        raise ConfigError(f"the fill-in-the-middle rate is {rate}; set it from 0 to 1, such as 0.1.")
    rng = stream_random(seed, "fill-in-middle", text_hash(text))
    if rng.random() >= rate:
        return (text,)
    first, second = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
    return text[:first], text[first:second], text[second:]


def join_pieces(tokenizer: Tokenizer, pieces: Sequence[Sequence[int]]) -> list[int]:
    """The ids of a document from the ids of what `cut_document` returned."""
    if len(pieces) == 1:
        return list(pieces[0])
    prefix, middle, suffix = pieces
    begin, hole, end = (tokenizer.id_of(token) for token in (FIM_BEGIN, FIM_HOLE, FIM_END))
    return [begin, *prefix, hole, *suffix, end, *middle]
