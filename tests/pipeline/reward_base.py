"""A small untrained model with a vocabulary of the general domain, for reward models to begin from."""

from pathlib import Path

import torch

from tenth.checkpoint.model_dir import save_model
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.transformer import Transformer, initialise
from tenth.tasks.general import preference_pairs
from tenth.tokenizer.chat import Template
from tenth.tokenizer.train import train_bpe

CONFIG = ModelConfig(
    name="judge",
    vocab_size=400,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
    max_position_embeddings=128,
    initializer_range=0.1,
)


def write_base(directory: Path, *, template: Template = Template.DEEPSEEK) -> Path:
    texts = [pair.prompt + pair.chosen for pair in preference_pairs(seed=9, count=200)]
    tokenizer = train_bpe(texts, vocab_size=400)
    model = initialise(Transformer(CONFIG), generator=torch.Generator().manual_seed(1))
    save_model(directory, model, tokenizer=tokenizer, template=template)
    return directory
