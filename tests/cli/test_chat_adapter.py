"""`tenth chat` with what is no whole model: an adapter is put on its base, a lost name is refused."""

import pytest
import torch

from tenth.base.errors import RunError
from tenth.checkpoint.model_dir import save_model
from tenth.checkpoint.peft import save_adapter
from tenth.cli.chat import open_talk
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.lora import LoraConfig, attach_lora, lora_parameters, merge_lora
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.train import train_bpe


def test_a_name_that_is_neither_model_nor_run_is_refused_as_both():
    with pytest.raises(RunError, match="no model is at lost, and there is no run 'lost'"):
        open_talk("lost", stage=None, temperature=None)


def test_an_adapter_is_talked_to_on_its_base(tmp_path):
    tokenizer = train_bpe(["What is 3+4?\n7"] * 20, vocab_size=280)
    config = ModelConfig(
        name="little",
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=8),
        max_position_embeddings=64,
    )
    generator = torch.Generator().manual_seed(0)
    model = initialise(Transformer(config), generator=generator)
    save_model(tmp_path / "base", model, tokenizer=tokenizer)
    attach_lora(model, LoraConfig(rank=2, alpha=8.0, targets=("q_proj", "down_proj")), generator=generator)
    for parameter in lora_parameters(model, "default").values():
        torch.nn.init.normal_(parameter, generator=generator)
    save_adapter(tmp_path / "lora", model, "default", base_model=str(tmp_path / "base"))

    def answer(name: str) -> list[int]:
        _, talk = open_talk(str(tmp_path / name), stage=None, temperature=0.0)
        return [token for piece in talk.ask("What is 3+4?") for token in piece.ids]

    save_model(tmp_path / "merged", merge_lora(model, "default"), tokenizer=tokenizer)
    assert answer("lora") == answer("merged") != answer("base")
