"""What belongs to a checkpoint beside its weights: the tokenizer and the chat template, of any format.

Why: a Hugging Face directory keeps them in files of its own, a GGUF file inside, and llama2.c beside itself;
whoever loads a model should not have to know.
In:  the path of a checkpoint, as `open_checkpoint` takes it. Out: a Tokenizer, a ChatTemplate.
Not here: the weights (opened.py), what a template does (tokenizer/chat.py).
"""

from pathlib import Path
from typing import Any

from tenth.base.errors import CheckpointError
from tenth.base.files import open_ordinary
from tenth.checkpoint.whole_dir import readable
from tenth.model.config import ModelConfig
from tenth.tokenizer.chat import ChatTemplate, Template
from tenth.tokenizer.jinja_files import read_template, template_from
from tenth.tokenizer.pretrained import find_vocabulary
from tenth.tokenizer.tokenizer import Tokenizer

GENERATION = "generation_config.json"
_GGUF = b"GGUF"
_MAX_NEIGHBOURS = 100  # a folder of downloads is not searched without end


def load_tokenizer(path: Path) -> Tokenizer:
    """The vocabulary of the checkpoint at `path`."""
    place = readable(path)
    if place.is_dir():
        return Tokenizer.load(place)
    if is_gguf(place):
        from tenth.checkpoint.gguf_reader import gguf_tokenizer  # it needs a library that not everyone has

        return gguf_tokenizer(place)
    return _llama2c_tokenizer(place)


def has_tokenizer(path: Path) -> bool:
    """Whether there is one, sound or not."""
    place = readable(path)
    if place.is_dir():
        return find_vocabulary(place) is not None
    return is_gguf(place) or bool(_beside(place))


def load_template(path: Path) -> ChatTemplate:
    """The chat template of the checkpoint at `path`; PLAIN where it has none."""
    place = readable(path)
    if place.is_dir():
        return read_template(place)
    if is_gguf(place):
        from tenth.checkpoint.gguf_reader import gguf_chat_template

        text = gguf_chat_template(place)
        if text is not None:
            return template_from(text)
    return Template.PLAIN


def generation_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids of a generation_config.json: what begins, ends and pads a text."""
    ends = tokenizer.eos_ids
    ids: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(ends) if len(ends) > 1 else tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    return {key: each for key, each in ids.items() if each is not None}


def require_vocabulary(tokenizer: Tokenizer, config: ModelConfig, *, source: object) -> None:
    """Refuse a tokenizer with ids that the embedding has no row for. More rows than tokens are usual."""
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{source}: the tokenizer has {tokenizer.vocab_size:,} tokens and the embedding only "
            f"{config.vocab_size:,} rows; put the tokenizer there that came with these weights."
        )


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    try:
        with open_ordinary(path) as file:
            return file.read(len(_GGUF)) == _GGUF
    except OSError as error:
        raise CheckpointError(f"could not read {path}: {error.strerror or error}; check the path.") from error


def _llama2c_tokenizer(path: Path) -> Tokenizer:
    """The vocabulary beside a llama2.c file: the first of the weights' size."""
    from tenth.checkpoint.opened import open_checkpoint

    wanted = open_checkpoint(path).config.vocab_size
    for candidate in _beside(path):
        tokenizer = Tokenizer.load(candidate)
        if tokenizer.vocab_size == wanted:
            return tokenizer
    raise CheckpointError(
        f"{path} has no vocabulary beside it: neither tokenizer.bin nor a tok*.bin there holds {wanted:,} "
        "tokens; put the one that the model was trained with beside it."
    )


def _beside(path: Path) -> list[Path]:
    """What may be a llama2.c vocabulary: `tokenizer.bin`, then `tok*.bin`."""
    found = dict.fromkeys([path.parent / "tokenizer.bin", *sorted(path.parent.glob("tok*.bin"))])
    return [file for file in found if file.is_file() and file != path][:_MAX_NEIGHBOURS]
