"""A model on which guessing ahead can be timed: a trained one whose steps read more weights than caches hold.

Why: speculation saves reading the weights, so it cannot be timed on a trained model that is small enough to
stay in the processor's cache, nor on random weights, whose tokens nobody can guess. Here a trained run's
model keeps its function and gets wider: its feed-forwards gain hidden units that nothing listens to (rows of
gate and up at random, columns of down at zero). Every step computes and reads them; no token changes.
In:  a directory of a finished run.  Out: a model directory, `wide`; `prompts.jsonl`, held-out problems; the
share of guesses accepted, measured on the model as trained and on the wide one.
Not here: tokens per second (`python -m benchmarks.engine --parts speculation --mtp-model OUT/wide ...`).

python -m benchmarks.draft_model RUN --out OUT
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tenth.base.files import read_json, write_lines
from tenth.base.records import Problem
from tenth.base.seeds import stream_seed
from tenth.checkpoint.model_dir import load_model, save_model
from tenth.engine.engine import Engine
from tenth.engine.request import SamplingParams
from tenth.engine.settings import EngineSettings, Speculation
from tenth.model.mlp import SwiGLU
from tenth.model.moe import MoE
from tenth.model.transformer import Transformer
from tenth.pipeline.frozen import held_out_problems
from tenth.pipeline.recipe import ZeroRecipe
from tenth.rollout.collect import prompt_ids
from tenth.tokenizer.special import THINK
from tenth.tokenizer.tokenizer import Tokenizer

STAGE = "04-zero"
STEP_BYTES = 100_000_000  # that a step of the wide model reads at least: three times a cache of 32 MB
MEASURED_AT = (0.0, 0.6)


def widened(model: Transformer, *, num_shared_experts: int) -> Transformer:
    """The same function with wider feed-forwards; routed experts stay. Dense layers get the same width."""
    config = model.config
    assert config.moe is not None
    width = num_shared_experts * config.moe.moe_intermediate_size
    moe = dataclasses.replace(config.moe, n_shared_experts=num_shared_experts)
    wide = Transformer(
        dataclasses.replace(config, name=f"{config.name}-wide", intermediate_size=width, moe=moe)
    )
    grown = {name for name, module in wide.named_modules() if isinstance(module, SwiGLU)}
    state = model.state_dict()
    generator = torch.Generator().manual_seed(stream_seed(0, "draft-model", config.name))
    with torch.no_grad():
        for name, target in wide.state_dict().items():
            module, _, part = name.removesuffix(".weight").rpartition(".")
            if module not in grown:
                target.copy_(state[name])
            elif part == "down":
                target.zero_()[:, : state[name].shape[1]] = state[name]
            else:  # gate and up are the halves of one matrix
                target.normal_(0.0, config.initializer_range, generator=generator)
                for half, old in zip(target.chunk(2), state[name].chunk(2), strict=True):
                    half[: len(old)] = old
    return wide.to_compute_dtype(state["embed.weight"].dtype)


def feed_forward_bytes(model: Transformer) -> int:
    """What a step without guesses reads of the dense feed-forwards and shared experts, in bf16."""
    total = 0
    for layer in model.layers:
        ffn: Any = layer.ffn.shared if isinstance(layer.ffn, MoE) else layer.ffn
        total += 2 * sum(parameter.numel() for parameter in ffn.parameters())
    return total


def shared_experts_for(model: Transformer, *, step_bytes: int) -> int:
    """How many shared experts make a step read so much."""
    config = model.config
    assert config.moe is not None
    per_expert = 2 * 3 * config.hidden_size * config.moe.moe_intermediate_size * config.num_hidden_layers
    return -(-step_bytes // per_expert)


def held_out(recipe: ZeroRecipe, *, per_family: int) -> list[Problem]:
    """Problems of the test set, the families in turn."""
    problems = held_out_problems(recipe)
    size = recipe.eval.problems_per_family
    step = max(1, size // per_family)
    return [problems[start + i] for i in range(0, size, step) for start in range(0, len(problems), size)]


def measure(
    name: str, model: Transformer, prompts: Sequence[Sequence[int]], recipe: ZeroRecipe, tokenizer: Tokenizer
) -> list[list[tuple[int, ...]]]:
    """Prints the share of guesses accepted, one problem after another; the answers of every temperature."""
    answers = []
    for temperature in MEASURED_AT:
        params = SamplingParams(
            max_new_tokens=recipe.rl.max_completion_length,
            temperature=temperature,
            stop_ids=(tokenizer.eos_id,),
            seed=stream_seed(recipe.seed, "draft-model", str(temperature)),
        )
        texts = {}
        for speculation in (Speculation.NONE, Speculation.MTP):
            settings = EngineSettings(max_sequences=1, speculation=speculation)
            # By a clock that stands still nothing is slow, so guesses are made whether or not they would pay.
            engine = Engine(model, settings, clock=lambda: 0.0)
            texts[speculation] = [engine.generate([prompt], params)[0][0].ids for prompt in prompts]
        stats, plain = engine.stats(), texts[Speculation.NONE]
        thinking = sum(tokenizer.id_of(THINK) in answer for answer in plain)
        print(
            f"{name}, temperature {temperature}: {stats.accepted_tokens} of {stats.drafted_tokens} guesses "
            f"accepted ({stats.accepted_tokens / max(1, stats.drafted_tokens):.4f}), {len(plain)} problems, "
            f"{thinking} with thinking, {sum(map(len, plain))} tokens in {stats.steps} steps, "
            f"{'the same' if texts[Speculation.MTP] == plain else 'OTHER'} tokens with guesses",
            flush=True,
        )
        answers.append(plain)
    return answers


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, help="a directory of a finished run of a recipe like recipes/tiny/zero.toml"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=int, default=12, help="problems per family to measure on")
    return parser.parse_args()


def main() -> None:
    args = parse()
    recipe, source = ZeroRecipe(**read_json(args.run / "recipe.json")), args.run / STAGE / "model"
    tokenizer = Tokenizer.load(source)
    problems = held_out(recipe, per_family=args.held_out)
    prompts = [prompt_ids(problem, tokenizer, template=recipe.template) for problem in problems]
    write_lines(args.out / "prompts.jsonl", ({"prompt_ids": prompt} for prompt in prompts))
    trained = load_model(source, dtype=torch.bfloat16)
    answers = measure("as trained", trained, prompts, recipe, tokenizer)
    wide = widened(trained, num_shared_experts=shared_experts_for(trained, step_bytes=STEP_BYTES))
    save_model(args.out / "wide", wide, tokenizer=tokenizer, template=recipe.template)
    read_mb = feed_forward_bytes(wide) / 1e6
    print(f"a step of the wide model reads {read_mb:.1f} MB of feed-forwards", flush=True)
    is_same = measure("wide", wide, prompts, recipe, tokenizer) == answers
    print(f"the wide model gives {'the same' if is_same else 'OTHER'} tokens as the trained one")
    print(
        "tokens per second: python -m benchmarks.engine --parts speculation "
        f"--mtp-model {args.out / 'wide'} --mtp-prompts {args.out / 'prompts.jsonl'} "
        f"--mtp-stop-ids {tokenizer.eos_id}"
    )


if __name__ == "__main__":
    main()
