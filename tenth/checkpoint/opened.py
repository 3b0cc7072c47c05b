"""A checkpoint of any format that is known, opened: what it says it is, and its tensors, not yet read.

Why: inspecting, converting and loading must not care whether a model lies in a Hugging Face directory, a GGUF
file or a llama2.c file; here the format is found out, and from here on all are the same.
In:  a path.
Out: a `Checkpoint`: the keys of a config.json, and a `TensorSource` under Hugging Face names.
A directory of our own int8 or int4 weights is refused: those are codes for our kernels, not numbers. Pickles
are refused: reading one runs whatever program it holds.
Not here: the formats (safetensors_dir.py, gguf_reader.py, llama2c.py), our network (names.py, model_dir.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tenth.checkpoint.tensor_source import TensorInfo, TensorSource
from tenth.model.config import ModelConfig
from tenth.model.hf_config import from_hf


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint."""

    path: Path
    format: Literal["safetensors", "gguf", "llama2.c"]
    config_values: Mapping[str, Any]  # the keys of a config.json
    source: TensorSource  # plain numbers: blocks of FP8 and of GGUF come dequantised
    stored: Mapping[str, TensorInfo]  # as the files hold them
    has_mtp: bool  # whether the draft layers that the configuration names are there

    @property
    def config(self) -> ModelConfig:
        """The network that the keys describe."""
        return from_hf(self.config_values)


def open_checkpoint(path: Path) -> Checkpoint:
    """Find out the format and open it; reads headers only."""
    raise NotImplementedError
