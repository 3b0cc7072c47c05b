"""Everything a run needs of the network, once through; prints JSON. Run with and without the kernels."""

import json

import torch

from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.ops import head_cross_entropy
from tenth.model.transformer import Transformer, initialise
from tenth.native.build import library

COMMON = {"vocab_size": 24, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
DEEPSEEK = ModelConfig(
    name="deepseek",
    num_hidden_layers=2,
    mla=MlaConfig(q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16),
    moe=MoeConfig(n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=16),
    num_nextn_predict_layers=1,
    initializer_range=0.2,
    max_position_embeddings=64,
    **COMMON,
)
QWEN = ModelConfig(
    name="qwen",
    num_hidden_layers=2,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
    initializer_range=0.2,
    max_position_embeddings=64,
    **COMMON,
)


def run_once(config: ModelConfig) -> dict[str, object]:
    """A training pass with gradients, a packed pass, sampling with and without temperature."""
    generator = torch.Generator().manual_seed(0)
    network = initialise(Transformer(config), generator=generator)
    ids = torch.randint(24, (2, 35), generator=generator)
    out = network.forward_training(ids[:, :34], depth=config.num_nextn_predict_layers)
    hidden = out.hidden.flatten(0, 1)
    targets, weights = ids[:, 1 : out.hidden.shape[1] + 1].flatten(), torch.ones(len(hidden))
    loss = head_cross_entropy(hidden, network.head_weight, targets, weights)
    total = loss + sum(h.square().sum() for h in out.mtp_hidden) + sum(b.loss for b in out.balances)
    total.backward()
    segments = (torch.arange(35) // 9).expand(2, 35)
    prompts = [[1, 2, 3], [4], list(range(20))]
    sampled = Engine(network).generate(
        prompts, SamplingParams(max_new_tokens=9, n=2, top_p=0.9, stop_ids=(0,))
    )
    return {
        "loss": float(loss.detach()),
        "gradients": [float(p.grad.norm()) for p in network.parameters()],
        "packed": network(ids, segment_ids=segments)[:, -1].flatten().tolist(),
        "tokens": [list(answer.ids) for group in sampled for answer in group],
    }


def run_everything() -> dict[str, object]:
    """Both kinds of network, and whether kernels were used."""
    return {
        "is_native": library() is not None,
        "deepseek": run_once(DEEPSEEK),
        "qwen": run_once(QWEN),
    }


if __name__ == "__main__":
    print(json.dumps(run_everything()))  # noqa: T201
