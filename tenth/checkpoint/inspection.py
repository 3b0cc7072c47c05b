"""What a checkpoint holds, without reading a weight: its tensors, whether they are all there, what is beside.

Why: before a download is trusted, a conversion begun or a run started, a person wants to see at a glance that
the files and the configuration belong together.
In:  the path of a checkpoint of any format. Out: an `Inspection`.
Tensors are grouped by their names with numbers left out, so that sixty-one layers of 256 experts are as many
lines as one of each.
Not here: counts that follow from the configuration alone (model/counts.py), how it is shown (cli/inspect.py).
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tenth.base.errors import TenthError
from tenth.checkpoint.block_fp8 import SCALE
from tenth.checkpoint.companions import has_tokenizer, load_template, load_tokenizer, require_vocabulary
from tenth.checkpoint.names import Fit, compare_names
from tenth.checkpoint.opened import open_checkpoint, quantisation_values, read_config
from tenth.checkpoint.safetensors_dir import SafetensorsDir
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.checkpoint.whole_dir import readable
from tenth.model.config import ModelConfig
from tenth.model.hf_config import from_hf, model_type_of
from tenth.tokenizer.chat import Template
from tenth.tokenizer.jinja_template import JinjaTemplate
from tenth.tokenizer.tokenizer import Tokenizer

_SHORT = {
    torch.float32: "f32",
    torch.bfloat16: "bf16",
    torch.float16: "f16",
    torch.float8_e4m3fn: "fp8",
}
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorGroup:
    """Tensors whose names differ in numbers only."""

    pattern: str  # the numbers are *
    count: int
    shapes: tuple[tuple[int, ...], ...]  # all that occur, in order of appearance
    dtypes: tuple[str, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything that `tenth inspect` says of a checkpoint beside its configuration's counts."""

    format: str
    family: str
    config: ModelConfig
    config_values: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]  # as the files hold them, under the files' own names
    groups: tuple[TensorGroup, ...]
    tokenizer: str  # a line each
    template: str
    fit: Fit | None = None  # under Hugging Face names; None for our own codes, which have none
    has_mtp: bool = False

    @property
    def num_bytes(self) -> int:
        """Of all tensors, as they are stored."""
        return sum(group.num_bytes for group in self.groups)


def inspect_checkpoint(path: Path) -> Inspection:
    """Read headers and vocabulary; a TenthError where the checkpoint cannot be opened at all."""
    place = readable(path)
    if place.is_dir() and quantisation_values(values := read_config(path)) is not None:
        return _inspect(path, "tenth's own codes", values, from_hf(values), SafetensorsDir(place).infos())
    checkpoint = open_checkpoint(path)
    config, has_mtp = checkpoint.config, checkpoint.has_mtp
    found = _inspect(path, checkpoint.format, checkpoint.config_values, config, checkpoint.stored)
    fit = compare_names(checkpoint.source.infos(), config, mtp=has_mtp)
    return dataclasses.replace(found, fit=fit, has_mtp=has_mtp)


def _inspect(
    path: Path,
    format_name: str,
    values: Mapping[str, object],
    config: ModelConfig,
    stored: Mapping[str, TensorInfo],
) -> Inspection:
    tokenizer, template = _companions(path, config)
    return Inspection(
        format=format_name,
        family=model_type_of(config),
        config=config,
        config_values=values,
        tensors=stored,
        groups=group_tensors(stored),
        tokenizer=tokenizer,
        template=template,
    )


def group_tensors(infos: Mapping[str, TensorInfo]) -> tuple[TensorGroup, ...]:
    """By name without numbers, in order of appearance. The scales of FP8 count as bytes of their matrix."""
    members: dict[str, list[TensorInfo]] = {}
    scale_bytes: Counter[str] = Counter()
    for name, info in infos.items():
        pattern, matrix = _NUMBER.sub("*", name), name.removesuffix(SCALE)
        if matrix != name and matrix in infos:
            scale_bytes[pattern.removesuffix(SCALE)] += info.num_bytes
        else:
            members.setdefault(pattern, []).append(info)
    return tuple(
        TensorGroup(
            pattern=pattern,
            count=len(group),
            shapes=tuple(dict.fromkeys(info.shape for info in group)),
            dtypes=tuple(dict.fromkeys(show_dtype(info) for info in group)),
            num_bytes=sum(info.num_bytes for info in group) + scale_bytes[pattern],
        )
        for pattern, group in members.items()
    )


def show_dtype(info: TensorInfo) -> str:
    """As `tenth convert` calls it, else as torch does."""
    return _SHORT.get(info.dtype) or str(info.dtype).removeprefix("torch.")


def _companions(path: Path, config: ModelConfig) -> tuple[str, str]:
    """A line on the tokenizer and one on the template; what is wrong with them is such a line, too."""
    if not has_tokenizer(path):
        return "none", "none"
    try:
        tokenizer = load_tokenizer(path)
        require_vocabulary(tokenizer, config, source=path)
    except TenthError as error:
        return f"cannot be used: {error}", "none"
    try:
        template = load_template(path)
    except TenthError as error:
        return _tokenizer_line(tokenizer), f"cannot be used: {error}"
    if isinstance(template, JinjaTemplate):
        return _tokenizer_line(tokenizer), f"Jinja, {len(template.text):,} characters"
    return _tokenizer_line(tokenizer), "plain text" if template is Template.PLAIN else f"tenth's {template}"


def _tokenizer_line(tokenizer: Tokenizer) -> str:
    spelled = {token_id: token for token, token_id in tokenizer.special_tokens.items()}

    def shown(token_id: int) -> str:
        return f"{spelled.get(token_id, 'token')} ({token_id})"

    kind = "bytes" if tokenizer.is_byte_level else "characters"
    begins = "none" if tokenizer.bos_id is None else shown(tokenizer.bos_id)
    ends = ", ".join(map(shown, tokenizer.eos_ids))
    return (
        f"{tokenizer.spec()['model']['type']} over {kind}, {tokenizer.vocab_size:,} tokens, "
        f"begins {begins}, ends {ends}"
    )
