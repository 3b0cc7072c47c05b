"""What an engine is built of: the runner that suits the model, the size of its cache, who guesses."""

import torch

from tenth.base.errors import ConfigError
from tenth.base.machine import free_memory_bytes
from tenth.engine.batcher import Batcher
from tenth.engine.block_pool import BLOCK, BlockPool
from tenth.engine.cold_blocks import ColdBlocks, spill_salt
from tenth.engine.cuda_runner import CudaRunner
from tenth.engine.drafts import Drafter, LookupDrafter, MtpDrafter
from tenth.engine.native_network import cell_dtype
from tenth.engine.native_runner import NativeRunner
from tenth.engine.padded_runner import PaddedRunner
from tenth.engine.runner import Runner
from tenth.engine.settings import EngineSettings, Speculation
from tenth.engine.spill import SpillStore
from tenth.engine.torch_runner import TorchRunner
from tenth.model.lora import adapter_names
from tenth.model.transformer import Transformer

_FREE_SHARE = 4  # the cache takes this part of the memory that is free
_UNKNOWN_BYTES = 1 << 30  # where nobody says how much is free


def build_runner(model: Transformer, settings: EngineSettings) -> Runner:
    """The fastest runner that takes this model."""
    if cell_dtype(model) is not None:
        return NativeRunner(model, cache_dtype=settings.cache_dtype)  # deterministic in any case
    has_adapters = bool(adapter_names(model))
    if model.norm.weight.device.type == "cuda" and (settings.deterministic or not has_adapters):
        return CudaRunner(model, cache_dtype=settings.cache_dtype, deterministic=settings.deterministic)
    if settings.deterministic:
        return PaddedRunner(model, cache_dtype=settings.cache_dtype, fixed_rows=1)
    return TorchRunner(model, cache_dtype=settings.cache_dtype)


def count_blocks(model: Transformer, runner: Runner, settings: EngineSettings) -> int:
    """How many blocks fit; no more than all sequences at full length could use."""
    useful = settings.max_sequences * -(-model.config.max_position_embeddings // BLOCK)
    budget = settings.cache_bytes or _free_bytes(model.norm.weight.device) // _FREE_SHARE
    if budget < runner.block_bytes:
        raise ConfigError(
            f"the cache may have {budget} bytes, but one block of {BLOCK} tokens needs {runner.block_bytes}; "
            "raise cache_bytes or free some memory."
        )
    return min(useful, budget // runner.block_bytes)


def build_cold_blocks(model: Transformer, runner: Runner, settings: EngineSettings) -> ColdBlocks | None:
    """The prefix cache's place on disk; None: it has none."""
    if settings.spill_dir is None:
        return None
    store = SpillStore(
        settings.spill_dir,
        salt=spill_salt(model, runner),
        block_bytes=runner.block_bytes,
        limit_bytes=settings.spill_bytes,
    )
    return ColdBlocks(store, runner)


def build_drafter(
    model: Transformer, settings: EngineSettings, runner: Runner, batcher: Batcher, pool: BlockPool
) -> Drafter | None:
    """Whoever guesses next tokens; None: nobody."""
    if settings.speculation is Speculation.NONE:
        return None
    if settings.speculation is Speculation.PROMPT_LOOKUP:
        return LookupDrafter(settings.draft_tokens)
    if not model.config.num_nextn_predict_layers:
        raise ConfigError(
            f"model '{model.config.name}' has no MTP module to guess with; set speculation to "
            f"{Speculation.PROMPT_LOOKUP} or {Speculation.NONE}."
        )
    return MtpDrafter(runner, batcher, pool)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory_bytes() or _UNKNOWN_BYTES
