"""Two other explanations of the gain, trained at the tokens that R1-Zero used: format alone, and imitation
alone.

*Format only*: the same reinforcement, rewarded for the tags and never for being right. *SFT on steps*:
supervised fine-tuning on step-by-step documents of the base's own levels, mistakes included, as they come.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tenth.base.records import Message, Role
from tenth.base.runlog import MetricSink
from tenth.base.seeds import stream_seed
from tenth.checkpoint.model_dir import save_model
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.base import optim_config
from tenth.pipeline.documents import Solutions
from tenth.pipeline.frozen import recipe_families
from tenth.pipeline.recipe import DocumentsSection, ZeroRecipe
from tenth.pipeline.saver import Saver
from tenth.pipeline.stage import Outcome, open_log
from tenth.tokenizer.chat import render_training
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.training.batches import TrainedSequence
from tenth.training.optim import WeightUpdater
from tenth.training.sft import sft_update

_EXAMPLES_PER_STEP = 128


def format_only(recipe: ZeroRecipe) -> ZeroRecipe:
    """The same recipe with nothing rewarded but the tags."""
    paid = {"accuracy_weight": 0.0, "format_weight": 1.0, "reward_functions": {}}
    rl = recipe.rl.model_copy(update=paid)
    return recipe.model_copy(update={"rl": rl})


def imitate_steps(
    directory: Path,
    recipe: ZeroRecipe,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    tokens: float,
    sinks: Sequence[MetricSink],
) -> Outcome:
    """SFT on worked documents until as many tokens are seen as R1-Zero sampled."""
    worked = recipe.documents.model_copy(update={"think_share": 1.0, "untagged_share": 0.0})
    updater = WeightUpdater(model, optim_config(recipe.rl.optim))
    saver = Saver(directory, recipe)
    state = saver.load()
    step, seen = 0, 0
    if state is not None:
        step, seen = state.step, int(state.facts["seen"])
        updater.load_state_dict(state.tensors)
    mean_tokens = 64
    log = open_log(
        directory,
        sinks=sinks,
        from_step=step,
        total_steps=max(1, round(tokens / (_EXAMPLES_PER_STEP * mean_tokens))),
    )
    while seen < tokens:
        examples = _examples(recipe, worked, tokenizer, step)
        stats = sft_update(
            model, updater, examples, micro_batch_tokens=recipe.rl.micro_batch_tokens, pad_id=tokenizer.pad_id
        )
        seen += sum(len(example.ids) for example in examples)
        log.log(step, stats.metrics() | {"num_tokens": float(seen)})
        step += 1
        if saver.is_due(step):
            saver.save(step, updater.state_dict(), {"seen": seen})
    log.end()
    weights = updater.masters.state_dict()
    save_model(directory / "model", model, tokenizer=tokenizer, template=recipe.template, weights=weights)
    flops = flops_per_token(model.config, context_tokens=mean_tokens).training * seen
    return Outcome(summary={"tokens": seen}, tokens=float(seen), flops=flops)


def _examples(
    recipe: ZeroRecipe, worked: DocumentsSection, tokenizer: Tokenizer, step: int
) -> list[TrainedSequence]:
    """One step's worked documents, a function of (seed, step)."""
    families = recipe_families(recipe)
    solutions = Solutions(
        recipe.families,
        families,
        worked,
        template=recipe.template,
        seed=stream_seed(recipe.seed, "sft-control", step),
    )
    examples = []
    for question, solution in islice(solutions.pairs(), _EXAMPLES_PER_STEP):
        messages = [Message(role=Role.USER, content=question), Message(role=Role.ASSISTANT, content=solution)]
        rendered = render_training(tokenizer, messages, template=recipe.template)
        examples.append(TrainedSequence(ids=rendered.ids, trained=tuple(map(bool, rendered.loss_mask))))
    return examples
