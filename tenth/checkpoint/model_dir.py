"""A model as a directory that everyone's tools load; and a Transformer from any checkpoint that is known.

Why: what a stage hands to the next one, to the sampler, to a person and to other tools is weights with all
that is needed to use them, whole or not there.
In:  a Transformer with its tokenizer, template and card; or the path of a checkpoint of any format.
Out: a Hugging Face directory: config.json, generation_config.json, safetensors files, tokenizer, template,
README.md; or a Transformer whose matrices are in the dtype that was asked for.
A quantised model keeps our own names: its tensors are codes and scales that no other tool reads, which its
config.json says. It comes back quantised.
Not here: names (names.py), formats (opened.py), optimizer state (training_state.py).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tenth.base.errors import CheckpointError, ConfigError
from tenth.base.files import write_json
from tenth.checkpoint.block_fp8 import in_fp8
from tenth.checkpoint.companions import GENERATION, generation_ids
from tenth.checkpoint.model_card import CARD, ModelCard
from tenth.checkpoint.names import fill_model, to_hf_tensors
from tenth.checkpoint.names import require_fit as require_hf_fit
from tenth.checkpoint.opened import (
    CONFIG,
    OWN_METHOD,
    open_checkpoint,
    quantisation_values,
    read_config,
)
from tenth.checkpoint.safetensors_dir import SafetensorsDir
from tenth.checkpoint.sharded_writer import HfWriter
from tenth.checkpoint.tensor_file import require_finite, require_fit
from tenth.checkpoint.whole_dir import readable, whole_directory
from tenth.model.config import ModelConfig
from tenth.model.hf_config import from_hf, is_rope_interleaved, to_hf
from tenth.model.lora import adapter_names
from tenth.model.quantize import Quantisation, quantisation_of, with_empty_matrices
from tenth.model.transformer import Transformer
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.jinja_files import save_template
from tenth.tokenizer.tokenizer import Tokenizer


def save_model(
    directory: Path,
    model: Transformer,
    *,
    tokenizer: Tokenizer | None = None,
    template: ChatTemplate | None = None,
    weights: Mapping[str, Tensor] | None = None,
    card: ModelCard | None = None,
    fp8: bool = False,
    keep_mtp: bool = True,
) -> None:
    """Write `directory`, replacing a model that is there.

    `weights`: float32 masters to store in place of the model's own rounded parameters, by the same names.
    `fp8`: store projections as DeepSeek publishes them. `keep_mtp` False: leave the draft modules out.
    """
    if adapter_names(model):
        raise ConfigError(
            f"{directory}: adapters lie beside the model's weights ({', '.join(adapter_names(model))}); "
            "merge_lora makes it one model, save_adapter writes an adapter alone."
        )
    own = model.state_dict()
    tensors = {**own, **(weights or {})}
    require_fit(tensors, own, source=directory)
    require_finite(tensors, source=directory)
    quantisation = quantisation_of(model)
    if quantisation and (fp8 or not keep_mtp):
        raise ConfigError(
            f"{directory}: a model of int8 or int4 codes is stored as it is; save the original."
        )
    config = model.config if keep_mtp else _without_mtp(model.config)
    ids = generation_ids(tokenizer) if tokenizer else {}
    values = to_hf(
        config,
        dtype="bfloat16" if fp8 else str(_stored_as(tensors)).removeprefix("torch."),
        is_fp8=fp8,
        bos_token_id=ids.get("bos_token_id"),
        eos_token_id=ids.get("eos_token_id"),
    )
    stored: Iterator[tuple[str, Tensor]] = to_hf_tensors(tensors, config, keep_mtp=keep_mtp)
    if quantisation:
        stored = iter(tensors.items())
        values["tenth"] |= {
            "quantisation": dataclasses.asdict(quantisation),
            "model_type": values["model_type"],
        }
        # No other tool shall take codes for weights: some look at the method, transformers at the type.
        values |= {"quantization_config": {"quant_method": OWN_METHOD}, "model_type": OWN_METHOD}
    elif fp8:
        stored = in_fp8(stored)
    with whole_directory(directory) as partial:
        writer = HfWriter(partial)
        for name, tensor in stored:
            writer.add(name, tensor)
        writer.finish()
        write_json(partial / CONFIG, values)
        _write_companions(partial, tokenizer=tokenizer, template=template, card=card)


def load_model(path: Path, *, dtype: torch.dtype) -> Transformer:
    """The model, its matrices in `dtype`, norms and routers in float32."""
    if readable(path).is_dir() and (quantisation := load_quantisation(path)):
        return _load_quantised(path, quantisation, dtype=dtype)
    checkpoint = open_checkpoint(path, is_checked=True)
    config = checkpoint.config if checkpoint.has_mtp else _without_mtp(checkpoint.config)
    require_hf_fit(checkpoint.source.infos(), config, mtp=True, origin=path)
    model = _empty_model(config, None, dtype=dtype)
    is_interleaved = is_rope_interleaved(checkpoint.config_values)
    fill_model(model, checkpoint.source, is_interleaved=is_interleaved, origin=path)
    return model


def load_config(path: Path) -> ModelConfig:
    """The configuration alone."""
    return from_hf(read_config(path)) if readable(path).is_dir() else open_checkpoint(path).config


def has_interleaved_rope(path: Path) -> bool:
    """Whether the rotary rows of these files are: an adapter's rows lie as those of its base do."""
    is_directory = readable(path).is_dir()
    return is_rope_interleaved(read_config(path) if is_directory else open_checkpoint(path).config_values)


def load_quantisation(directory: Path) -> Quantisation | None:
    """How the matrices of our own directory are stored; None where they are plain numbers."""
    values = quantisation_values(read_config(directory))
    try:
        return None if values is None else Quantisation(**values)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(
            f"{directory / CONFIG}: the key tenth.quantisation does not fit ({error}); quantise the original "
            "again."
        ) from error


def _without_mtp(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, num_nextn_predict_layers=0)


def _empty_model(
    config: ModelConfig, quantisation: Quantisation | None, *, dtype: torch.dtype
) -> Transformer:
    """A network whose parameters are memory that nobody has written: drawing random ones would be in vain."""
    with torch.device("meta"):
        model = Transformer(config)
    if quantisation is not None:
        with_empty_matrices(model, quantisation)
    model.to_compute_dtype(dtype).to_empty(device="cpu")
    # What no checkpoint holds, taken from the smallest network with the same positions.
    small = dataclasses.replace(
        config, vocab_size=1, hidden_size=1, num_hidden_layers=0, num_nextn_predict_layers=0
    )
    tables = Transformer(small)
    model.cos, model.sin = tables.cos, tables.sin
    return model


@torch.no_grad()
def _load_quantised(directory: Path, quantisation: Quantisation, *, dtype: torch.dtype) -> Transformer:
    model = _empty_model(load_config(directory), quantisation, dtype=dtype)
    source, own = SafetensorsDir(readable(directory), is_checked=True), model.state_dict()
    infos = source.infos()
    require_fit(infos, own, source=directory)
    for name, tensor in own.items():
        if not tensor.is_floating_point() and infos[name].dtype != tensor.dtype:
            raise CheckpointError(  # codes of another type would turn into other numbers
                f"{directory}: '{name}' holds {infos[name].dtype} and its quantisation asks for "
                f"{tensor.dtype}; quantise the original again."
            )
        tensor.copy_(source.read(name))
        require_finite({name: tensor}, source=directory)
    return model


def _stored_as(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of the matrices; of a quantised model, of what stayed as it was."""
    return tensors["embed.weight" if "embed.weight" in tensors else "norm.weight"].dtype


def _write_companions(
    directory: Path, *, tokenizer: Tokenizer | None, template: ChatTemplate | None, card: ModelCard | None
) -> None:
    """Everything that is no weight."""
    if tokenizer is not None:
        tokenizer.save(directory)
        write_json(directory / GENERATION, generation_ids(tokenizer))
    if template is not None:
        save_template(directory, template)
    if card is not None:
        (directory / CARD).write_text(card.to_markdown(), encoding="utf-8")
