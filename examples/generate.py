"""Text from a model directory: a batch with samples and a stop string, a stream, and many callers at once.

A real run leaves such a directory behind (`runs/NAME/04-zero/model`). Here an untrained network stands in, so
that this runs anywhere in seconds; it babbles.
"""

import asyncio
import tempfile
from pathlib import Path

import torch

from tenth.checkpoint.model_dir import save_model
from tenth.engine.request import SamplingParams
from tenth.llm.async_llm import AsyncLLM
from tenth.llm.llm import LLM
from tenth.model.config import GqaConfig, ModelConfig
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.chat import Template
from tenth.tokenizer.train import train_bpe


def save_untrained(directory: Path) -> None:
    """What `tenth run` does with more care."""
    tokenizer = train_bpe(["User: What is 3+4? Assistant: <think>3+4=7</think> 7."] * 10, vocab_size=300)
    config = ModelConfig(
        name="babbler",
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
        max_position_embeddings=256,
    )
    model = initialise(Transformer(config), generator=torch.Generator().manual_seed(0))
    save_model(directory, model, tokenizer=tokenizer, template=Template.DEEPSEEK)


def ask_in_a_batch(llm: LLM) -> None:
    """Two prompts, two samples each; a sample ends where it writes a question mark."""
    params = SamplingParams(max_new_tokens=24, n=2, temperature=0.8, seed=1)
    prompts = ["User: What is 3+4? Assistant:", "What"]
    outputs = llm.generate(prompts, params, stop=["?"])
    for prompt, output in zip(prompts, outputs, strict=True):
        for sample in output.samples:
            print(f"{prompt!r} -> {sample.text!r} ({len(sample.ids)} tokens, {sample.finish})")
            assert "?" not in sample.text

    # The same seed gives the same text, alone or in company.
    assert llm.generate(prompts[0], params, stop=["?"])[0].samples[0].text == outputs[0].samples[0].text


def watch_it_write(llm: LLM) -> None:
    """A conversation, written as the model's directory says, shown piece by piece."""
    question = {"role": "user", "content": "What is 3+4?"}
    params = SamplingParams(max_new_tokens=24, temperature=0.8)
    print("streamed: ", end="")
    for piece in llm.stream(llm.render([question], prefill="<think>"), params):
        print(repr(piece.text)[1:-1], end="", flush=True)  # escaped: a babbler writes control characters
    print()


async def serve_many(model_dir: Path) -> None:
    """Eight tasks share the steps of one engine; the one that is cancelled costs nothing more."""
    params = SamplingParams(max_new_tokens=16)
    async with AsyncLLM(model_dir) as llm:
        tasks = [asyncio.create_task(llm.generate(f"What is {i}+1?", params)) for i in range(8)]
        await asyncio.sleep(0)
        tasks.pop().cancel()
        outputs = await asyncio.gather(*tasks)
        stats = await llm.call(llm.engine.stats)
    print(f"{len(outputs)} answers in {stats.steps} steps")


def main() -> None:
    """All three."""
    with tempfile.TemporaryDirectory() as directory:
        model_dir = Path(directory) / "model"
        save_untrained(model_dir)
        llm = LLM(model_dir)
        ask_in_a_batch(llm)
        watch_it_write(llm)
        asyncio.run(serve_many(model_dir))


if __name__ == "__main__":
    main()
