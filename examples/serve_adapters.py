"""Several adapters over one base, in one batch: two LoRA adapters trained by hand, saved for PEFT, served.

Each learns to answer one question in its own words; the base, which is packed once, knows neither. Runs
anywhere in seconds.
"""

import asyncio
import tempfile
from pathlib import Path

import torch

from tenth.checkpoint.model_dir import load_model, save_model
from tenth.checkpoint.peft import save_adapter
from tenth.engine.request import SamplingParams
from tenth.llm.async_llm import AsyncLLM
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.lora import LoraConfig, attach_lora, default_targets, lora_parameters
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

QUESTION = "What is the sea?"
ANSWERS = {"poet": " A song that salt sings.", "judge": " Water, much of it."}


def save_base(directory: Path) -> None:
    """An untrained network with its tokenizer."""
    tokenizer = train_bpe([QUESTION, *ANSWERS.values()] * 10, vocab_size=300)
    config = ModelConfig(
        name="base",
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
        max_position_embeddings=128,
    )
    model = initialise(Transformer(config), generator=torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer=tokenizer)


def train_adapter(base_dir: Path, directory: Path, *, answer: str) -> None:
    """Teach one sentence to two thin matrices per layer; the base stays as it is."""
    tokenizer, model = Tokenizer.load(base_dir), load_model(base_dir, dtype=torch.float32)
    config = LoraConfig(rank=8, alpha=16.0, targets=default_targets(model.config))
    attach_lora(model, config, generator=torch.Generator().manual_seed(1))
    prompt = [tokenizer.bos_id, *tokenizer.encode(QUESTION)]
    ids = torch.tensor([[*prompt, *tokenizer.encode(answer), tokenizer.eos_id]])
    optimizer = torch.optim.AdamW(lora_parameters(model).values(), lr=0.01)
    for _ in range(200):
        logits = model.logits(model(ids))[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save_adapter(directory, model, base_model=str(base_dir))


async def ask_everybody(base_dir: Path, adapters: dict[str, Path]) -> dict[str | None, str]:
    """One question to every adapter and to the base, at the same time."""
    params = SamplingParams(max_new_tokens=16, temperature=0)
    async with AsyncLLM(base_dir, dtype=torch.float32, adapters=adapters) as llm:
        names = [None, *adapters]
        outputs = await asyncio.gather(*(llm.generate(QUESTION, params, adapter=name) for name in names))
        stats = await llm.call(llm.engine.stats)
    print(f"{len(names)} answers in {stats.steps} steps")
    return {name: output.text for name, output in zip(names, outputs, strict=True)}


def main() -> None:
    """Train, save, serve."""
    with tempfile.TemporaryDirectory() as folder:
        base_dir = Path(folder) / "base"
        adapters = {name: Path(folder) / name for name in ANSWERS}
        save_base(base_dir)
        for name, directory in adapters.items():
            train_adapter(base_dir, directory, answer=ANSWERS[name])
        answers = asyncio.run(ask_everybody(base_dir, adapters))
    for asked, text in answers.items():
        print(f"{asked or 'the base'}: {text!r}")
    assert {name: answers[name] for name in ANSWERS} == ANSWERS


if __name__ == "__main__":
    main()
