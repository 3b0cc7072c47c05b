"""From a model directory to requests in text: loads weights and tokenizer, and builds the engine over them.

Why: the batch call and the asynchronous one start the same way.
In:  the path of a checkpoint of any format, with its tokenizer.  Out: `TextRequests`.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from tenth.checkpoint.companions import load_template, load_tokenizer, require_vocabulary
from tenth.checkpoint.model_dir import has_interleaved_rope, load_config, load_model
from tenth.checkpoint.peft import load_adapter
from tenth.engine.engine import Engine
from tenth.engine.settings import EngineSettings
from tenth.llm.text_requests import TextRequests


def load_requests(
    model_dir: Path | str,
    *,
    dtype: torch.dtype = torch.bfloat16,
    settings: EngineSettings | None = None,
    adapters: Mapping[str, Path | str] | None = None,
) -> TextRequests:
    """Everything slow or fallible happens here. `dtype` is that of the matrices; `adapters` are PEFT
    directories by the names that requests will call them."""
    path = Path(model_dir)
    config, tokenizer = load_config(path), load_tokenizer(path)
    require_vocabulary(tokenizer, config, source=path)
    template = load_template(path)
    model = load_model(path, dtype=dtype)
    for name, directory in (adapters or {}).items():
        load_adapter(model, Path(directory), name=name, rope_interleaved=has_interleaved_rope(path))
    engine = Engine(model, settings or EngineSettings())
    return TextRequests(engine, tokenizer, model.config, template=template)
