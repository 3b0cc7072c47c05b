"""Adapters computed, trained and stored here are PEFT's, over transformers' models with the same weights."""

import dataclasses

import pytest
import torch
from test_deepseek_v3 import FULL
from test_every_family import LLAMA, QWEN
from weights import load, randomise

from tenth.checkpoint.peft import load_adapter, merge_adapter_source, save_adapter
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.model.config import ModelConfig
from tenth.model.hf_config import to_hf
from tenth.model.lora import (
    LoraConfig,
    attach_lora,
    default_targets,
    lora_parts,
    lora_places,
    merge_lora,
)
from tenth.model.rope import half_to_interleaved
from tenth.model.transformer import Transformer

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.parity

CASES = {
    "llama": LLAMA,
    "qwen2": QWEN,
    "deepseek_v3": FULL,
    "no query latent": dataclasses.replace(FULL, mla=dataclasses.replace(FULL.mla, q_lora_rank=None)),
}
TOLERANCE = 1e-4


def build_pair(config: ModelConfig):
    """The same weights here and in transformers."""
    values = to_hf(config, dtype="float32", bos_token_id=None, eos_token_id=None)
    theirs = transformers.AutoConfig.for_model(**values)
    theirs._attn_implementation = theirs._experts_implementation = "eager"
    peer = transformers.AutoModelForCausalLM.from_config(theirs).eval()
    randomise(peer, seed=0)
    network = Transformer(config)
    load(network, peer.state_dict())
    return network, peer


def adapted_peer(peer, config: ModelConfig, *, use_rslora: bool = False):
    """PEFT's adapter with both factors random, on everything that both of us adapt."""
    targets = [*default_targets(config), *(["kv_b_proj"] if config.mla else [])]
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=3, lora_alpha=5, target_modules=targets, use_rslora=use_rslora
    )
    wrapped = peft.get_peft_model(peer, settings)
    fill(p for name, p in wrapped.named_parameters() if "lora_" in name)
    return wrapped


@torch.no_grad()
def fill(parameters, *, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def some_ids() -> torch.Tensor:
    return torch.randint(64, (2, 80), generator=torch.Generator().manual_seed(1))


def ours(network: Transformer) -> torch.Tensor:
    return network.logits(network(some_ids()))


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_an_adapter_that_peft_saved_computes_the_same_here(config, use_rslora, tmp_path):
    network, peer = build_pair(config)
    plain = ours(network)
    wrapped = adapted_peer(peer, config, use_rslora=use_rslora)
    wrapped.save_pretrained(tmp_path)
    load_adapter(network, tmp_path)
    theirs = wrapped(some_ids()).logits
    assert (ours(network) - theirs).abs().max() <= TOLERANCE
    assert (theirs - plain).abs().max() > 1  # the adapter is felt
    merge_lora(network)
    assert (ours(network) - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_an_adapter_saved_here_computes_the_same_in_peft(config, use_rslora, tmp_path):
    network, peer = build_pair(config)
    targets = default_targets(config)
    attach_lora(network, LoraConfig(rank=3, alpha=5.0, targets=targets, use_rslora=use_rslora))
    fill(factor for _, part in lora_parts(network) for factor in (part.lora_A, part.lora_B))
    save_adapter(tmp_path / "adapter", network, "default", base_model="some/base")
    with torch.no_grad():
        wrapped = peft.PeftModel.from_pretrained(peer, tmp_path / "adapter").eval()
        theirs = wrapped(some_ids()).logits
    assert (ours(network) - theirs).abs().max() <= TOLERANCE
    assert wrapped.peft_config["default"].base_model_name_or_path == "some/base"


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_gradients_of_both_factors_are_those_that_peft_computes(config, tmp_path):
    network, peer = build_pair(config)
    wrapped = adapted_peer(peer, config)
    wrapped.save_pretrained(tmp_path)
    load_adapter(network, tmp_path)
    weights = torch.randn(2, 80, 64, generator=torch.Generator().manual_seed(2)) / 80
    (ours(network) * weights).sum().backward()
    (wrapped(some_ids()).logits * weights).sum().backward()
    theirs = {name: parameter.grad for name, parameter in wrapped.named_parameters() if "lora_" in name}
    assert len(theirs) == 2 * len(list(lora_parts(network)))
    for place, part in lora_parts(network):
        prefix = f"base_model.model.{place.hf_name}."
        up = part.lora_B.grad
        if place.rope_head_dim is not None:
            up = half_to_interleaved(up, config.rope_dim, head_dim=place.rope_head_dim)
        for factor, gradient in (("lora_A", part.lora_A.grad), ("lora_B", up)):
            expected = theirs[f"{prefix}{factor}.default.weight"]
            assert (gradient - expected).abs().max() <= 1e-4 * expected.abs().max(), prefix
    assert all(p.grad is None for name, p in network.named_parameters() if ".adapters." not in name)


class StateSource:
    """A state dict as a source of tensors."""

    def __init__(self, state):
        self.state = state

    def infos(self):
        return {n: TensorInfo(dtype=t.dtype, shape=tuple(t.shape)) for n, t in self.state.items()}

    def read(self, name):
        return self.state[name]


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_an_adapter_of_every_target_merged_into_the_files_computes_the_same_in_transformers(config, tmp_path):
    network, peer = build_pair(config)
    targets = tuple(dict.fromkeys(place.target for place in lora_places(config)))
    attach_lora(network, LoraConfig(rank=3, alpha=5.0, targets=targets))
    fill(factor for _, part in lora_parts(network) for factor in (part.lora_A, part.lora_B))
    save_adapter(tmp_path / "adapter", network, "default", base_model="some/base")
    source = merge_adapter_source(StateSource(peer.state_dict()), tmp_path / "adapter")
    before = peer(some_ids()).logits
    peer.load_state_dict({name: source.read(name).clone() for name in source.infos()})
    with torch.no_grad():
        theirs = peer(some_ids()).logits
    assert (ours(network) - theirs).abs().max() <= TOLERANCE
    assert (theirs - before).abs().max() > 1
