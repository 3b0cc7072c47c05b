"""A checkpoint of any format as one GGUF file with its vocabulary and its chat template.

Why: what tenth trains should run where people run models, and that is llama.cpp and what is built on it.
In:  a checkpoint's path, a target, a type.  Out: the file, and what its user has to know.
MTP layers are left out, as llama.cpp's own converter leaves them out.
Not here: how the file is written (gguf_writer.py), the command (cli/export.py).
"""

from collections.abc import Callable
from pathlib import Path

from tenth.checkpoint.companions import load_template, load_tokenizer
from tenth.checkpoint.gguf_vocabulary import own_cut_warning, vocabulary_keys
from tenth.checkpoint.gguf_writer import write_gguf
from tenth.checkpoint.opened import Checkpoint, open_checkpoint
from tenth.model.hf_config import is_rope_interleaved
from tenth.tokenizer.chat import ChatTemplate, Template
from tenth.tokenizer.jinja_files import OWN_TEXTS
from tenth.tokenizer.jinja_template import JinjaTemplate


def export_gguf(
    path: Path, target: Path, *, file_type: str, on_progress: Callable[[int, int], None]
) -> tuple[str, ...]:
    """Write `target`; what its user has to know. `on_progress` hears how many of how many bytes of numbers
    are written."""
    checkpoint = open_checkpoint(path, is_checked=True)
    return export_checkpoint(checkpoint, target, file_type=file_type, on_progress=on_progress)


def export_checkpoint(
    checkpoint: Checkpoint, target: Path, *, file_type: str, on_progress: Callable[[int, int], None]
) -> tuple[str, ...]:
    """The same for a checkpoint that is open."""
    config, path = checkpoint.config, checkpoint.path
    tokenizer = load_tokenizer(path)
    keys = vocabulary_keys(tokenizer, vocab_size=config.vocab_size)
    text = _text_of(load_template(path))
    write_gguf(
        target,
        config,
        checkpoint.source,
        file_type=file_type,
        is_interleaved=is_rope_interleaved(checkpoint.config_values),
        beside=keys if text is None else {**keys, "tokenizer.chat_template": text},
        on_progress=on_progress,
    )
    warning = own_cut_warning(tokenizer)
    return () if warning is None else (warning,)


def _text_of(template: ChatTemplate) -> str | None:
    """Jinja's text; none for a base model, which continues what it is given."""
    if isinstance(template, JinjaTemplate):
        return template.text
    return None if template is Template.PLAIN else OWN_TEXTS[template]
