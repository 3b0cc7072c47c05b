"""A small model directory and files of problems and conversations, made by the tests themselves."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from tenth.checkpoint.model_dir import save_model
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.chat import ChatTemplate
from tenth.tokenizer.train import train_bpe

CONTEXT = 96
REWARDS = '''
import math, time

def odd_start(completions, completion_ids, **kwargs):
    """Something that can be learnt."""
    return [float(ids[0] % 2) for ids in completion_ids]

def wanted(completions, wish, **kwargs):
    return [float(each in text) for text, each in zip(completions, wish)]

def raises(completions, **kwargs):
    raise KeyError("no such column")

def short(completions, **kwargs):
    return [1.0]

def nan(completions, **kwargs):
    return [math.nan] * len(completions)

def hangs(completions, **kwargs):
    time.sleep(1000)
'''


LLAMA = ModelConfig(
    name="small",
    vocab_size=1,  # replaced by the tokenizer's
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
    max_position_embeddings=CONTEXT,
    initializer_range=0.1,
)
DEEPSEEK = replace(
    LLAMA,
    gqa=None,
    mla=MlaConfig(q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16),
    moe=MoeConfig(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=16),
    num_nextn_predict_layers=1,
)


def make_model(directory: Path, *, template: ChatTemplate | None = None, config: ModelConfig = LLAMA) -> Path:
    """An untrained model with a vocabulary for sums."""
    texts = [f"What is {a}+{b}? The answer is {a + b}." for a in range(12) for b in range(12)]
    tokenizer = train_bpe(texts, vocab_size=300)
    network = Transformer(replace(config, vocab_size=tokenizer.vocab_size))
    model = initialise(network, generator=torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer=tokenizer, template=template)
    return directory


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sums(*, num: int = 30) -> list[dict[str, object]]:
    """Problems with an answer and a column for a reward."""
    return [{"prompt": f"What is {i}+1?", "answer": str(i + 1), "wish": str(i % 3)} for i in range(num)]


def without_answers(*, num: int = 30) -> list[dict[str, object]]:
    return [{name: row[name] for name in ("prompt", "wish")} for row in sums(num=num)]
