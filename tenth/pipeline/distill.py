"""`tenth distill`: a student of somebody's choice learns from a teacher of somebody's choice.

DeepSeek-R1 (arXiv:2501.12948v2), section 4 and F.1: students learn R1's answers by SFT alone, 2-3 epochs, the
rate falling by a cosine to a tenth, 64 examples a step. Distributions in place of words: training/distill.py.
asked -> chosen -> measured -> trained -> measured again, and a model that other tools load.
In:  a `Teacher`, opened only where it is needed; a student; prompts, with answers to check by or without.
Out: a run directory; the teacher's samples and `model/` in it. Repeat the command to continue.
Not here: who the two are (distill_sides.py), the answers (distill_answers.py), other losses
(distill_objectives.py), training (tune_sft.py), the command line (cli/distill.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tenth.base.config import apply_overrides, build_recipe
from tenth.base.files import file_hash, read_json
from tenth.base.records import AskParams, Problem
from tenth.base.runlog import MetricSink
from tenth.base.seeds import stream_seed
from tenth.checkpoint.model_card import ModelCard
from tenth.checkpoint.model_dir import load_config, load_model
from tenth.model.counts import flops_per_token
from tenth.model.transformer import Transformer
from tenth.pipeline.distill_answers import Filter, ask_teacher, choose_samples, num_parts
from tenth.pipeline.distill_objectives import LogitRun, OnPolicyRun, load_top_k, store_top_k
from tenth.pipeline.distill_sides import (
    Teacher,
    default_rate,
    find_student,
    make_student,
    require_local,
    require_same_vocabulary,
)
from tenth.pipeline.lock import only_writer
from tenth.pipeline.machine import Machine
from tenth.pipeline.sample_card import SAMPLES
from tenth.pipeline.sft_trainer import ExampleSplit, num_steps
from tenth.pipeline.stage import Outcome, Stage, done_number, open_log, run_stages
from tenth.pipeline.tune import Base, begin_run, lora_config, stage_named, write_card
from tenth.pipeline.tune_draw import hold_out
from tenth.pipeline.tune_problems import require_room
from tenth.pipeline.tune_recipe import DistillKind, DistillRecipe, SftRecipe
from tenth.pipeline.tune_sft import SftRun, introduction, prepare_sft, require_sft_memory
from tenth.rollout.collect import prompt_ids
from tenth.tasks.judge import Judge
from tenth.tasks.problem_files import read_problems, read_prompts
from tenth.training.batches import TrainedSequence

_LONGEST_OF_API = 32_768  # DeepSeek's default for its reasoner
_SEEDS = 1 << 31  # an API's seeds
# What the teacher's answers depend on; everything else is the training's.
_ANSWER_KEYS = (
    *("seed", "samples", "temperature", "top_p", "max_completion_length", "min_language", "max_repetition"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillResult:
    """A finished run: nats per token on what was set aside, of SFT's loss or of the divergence."""

    run_dir: Path
    kind: DistillKind
    loss_before: float
    loss_after: float
    num_held_out: int
    usd: float


def run_distill(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    teacher: Teacher,
    out: Path,
    needs_answers: bool = False,
    command: str = "",
    sinks: Sequence[MetricSink] = (),
    say: Callable[[str], None] = lambda _: None,
) -> DistillResult:
    """Run, or continue, with the settings of `DistillRecipe`; `needs_answers`: every prompt has one."""
    given = apply_overrides(dict(values), overrides)
    student = Path(str(given["model"]))
    given.setdefault("learning_rate", default_rate(student, lora_rank=given.get("lora_rank")))
    recipe = build_recipe(DistillRecipe, given, source="tenth distill")
    require_local(recipe, teacher)
    read = read_problems if needs_answers else read_prompts
    problems = {each.problem_id: each for each in read(Path(recipe.prompts))}
    with only_writer(out):
        base, identity = find_student(student, teacher, out, seed=recipe.seed)
        if recipe.method is not DistillKind.SFT:
            require_same_vocabulary(base, teacher)
        lora_config(recipe, base)  # checks it
        hashes = {
            "model": identity,
            "teacher": teacher.identity,
            "prompts": file_hash(Path(recipe.prompts)),
        }
        machine, settings = begin_run(out, recipe, hashes=hashes, reward_files={}, say=say)
        make_student(base, seed=recipe.seed)
        story = _Story(
            out=out,
            recipe=recipe,
            teacher=teacher,
            base=base,
            problems=tuple(problems.values()),
            machine=machine,
            sinks=sinks,
            say=say,
            hashes=hashes,
        )
        run = (
            story.run_on_policy(settings)
            if recipe.method is DistillKind.ON_POLICY
            else story.run_on_answers(settings)
        )
        result = DistillResult(
            run_dir=out,
            kind=recipe.method,
            loss_before=run.loss("measure-before"),
            loss_after=run.loss("measure-after"),
            num_held_out=len(run.split.held_out),
            usd=story.usd(),
        )
        write_card(out, _card(story, run, command, result), base, recipe)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """What the stages share."""

    out: Path
    recipe: DistillRecipe
    teacher: Teacher
    base: Base
    problems: Sequence[Problem]
    machine: Machine
    sinks: Sequence[MetricSink]
    say: Callable[[str], None]
    hashes: Mapping[str, str]

    def run_on_answers(self, settings: Mapping[str, Any]) -> SftRun:
        """Ask and choose; then SFT on the words, or on the distributions over them."""
        depends_on = {key: settings[key] for key in _ANSWER_KEYS} | {
            "hashes": {name: self.hashes[name] for name in ("teacher", "prompts")}
        }
        stages = [Stage(name="answers", settings=depends_on, run=self._answer)]
        run_stages(self.out, stages)
        data = stage_named(self.out, "answers") / SAMPLES
        self._say_what_was_kept()
        sft, split, note = prepare_sft(self._sft_recipe(data), self.base)
        require_sft_memory(sft, self.base)
        for sentence in (*note, introduction(self.out, sft, split)):
            self.say(sentence)
        if self.recipe.method is DistillKind.SFT:
            run = SftRun(**self._shared(sft, split))
        else:
            sequences = (*split.training, *split.held_out)
            read = partial(self._read_by_teacher, sequences=sequences)
            stages.append(Stage(name="top-k", needs=("answers",), settings=settings, run=read))
            run_stages(self.out, stages)
            run = LogitRun(
                **self._shared(sft, split),
                tops=load_top_k(stage_named(self.out, "top-k"), sequences, self.recipe),
                config=self.recipe.distill_config(),
                vocab_size=self._vocab_size,
            )
        before, *others = run.stages(settings)
        stages += [replace(before, needs=(stages[-1].name,)), *others]
        run_stages(self.out, stages)
        return run

    def run_on_policy(self, settings: Mapping[str, Any]) -> SftRun:
        """The student answers, the teacher reads."""
        recipe, base = self.recipe, self.base
        context = self._context
        answer_tokens = recipe.max_completion_length or max(1, context // 2)
        split = self._split_prompts(answer_tokens=answer_tokens, context=context)
        steps = recipe.steps or num_steps(
            len(split.training), epochs=recipe.epochs, batch_size=recipe.batch_size
        )
        sft = self._sft_recipe(Path(recipe.prompts)).model_copy(update={"steps": steps})
        require_sft_memory(sft, base)
        self.say(
            f"{self.out}: {steps:,} steps × {recipe.batch_size} answers of the student, read by "
            f"{self.teacher.name}; {len(split.held_out):,} prompts are set aside."
        )
        run = OnPolicyRun(
            **self._shared(sft, split),
            teacher=self._load_teacher(),
            config=recipe.distill_config(),
            vocab_size=self._vocab_size,
            answer_tokens=answer_tokens,
        )
        run_stages(self.out, run.stages(settings))
        return run

    def usd(self) -> float:
        """What the teacher's answers cost."""
        done = next(self.out.glob("*-answers/DONE.json"), None)
        return 0.0 if done is None else float(read_json(done)["summary"]["usd"])

    @property
    def _context(self) -> int:
        """How long a sequence may be for whoever has to read it."""
        limits = [self.base.config.max_position_embeddings]
        if self.recipe.method is not DistillKind.SFT and self.teacher.model_dir is not None:
            limits.append(load_config(self.teacher.model_dir).max_position_embeddings)
        return min(self.recipe.max_length or limits[0], *limits)

    def _sft_recipe(self, data: Path) -> SftRecipe:
        sft = self.recipe.sft_recipe(model=str(self.base.path), data=str(data))
        return sft.model_copy(update={"max_length": self._context})

    def _shared(self, sft: SftRecipe, split: ExampleSplit) -> dict[str, Any]:
        return {
            "run_dir": self.out,
            "recipe": sft,
            "base": self.base,
            "split": split,
            "machine": self.machine,
            "sinks": self.sinks,
        }

    def _answer(self, directory: Path) -> Outcome:
        recipe, teacher = self.recipe, self.teacher
        longest = recipe.max_completion_length or (None if teacher.model_dir else _LONGEST_OF_API)
        params = AskParams(
            n=recipe.samples,
            max_tokens=longest,
            temperature=recipe.temperature,
            top_p=recipe.top_p if recipe.temperature else 1.0,
            seed=stream_seed(recipe.seed, "distill") % _SEEDS,
        )
        log = open_log(directory, sinks=self.sinks, from_step=0, total_steps=num_parts(self.problems))
        with teacher.open() as responder:
            said = ask_teacher(
                directory, self.problems, responder, params, log=log, is_partial=recipe.partial
            )
        log.end()
        with Judge() as judge:
            summary = choose_samples(
                directory,
                said,
                Filter(
                    check=judge.check_many,
                    min_language=recipe.min_language,
                    max_repetition=recipe.max_repetition,
                ),
                tokenizer=self.base.tokenizer,
                template=self.base.template,
                lineage={"model": teacher.name, "prompt": Path(recipe.prompts).name},
                is_own_text=teacher.model_dir is not None,
            )
        tokens = sum(each.prompt_tokens + each.completion_tokens for each in said)
        flops = None  # an API's are not known
        if teacher.model_dir:
            config = load_config(teacher.model_dir)
            flops = tokens * flops_per_token(config, context_tokens=max(1, tokens // len(said))).forward
        summary |= {
            "prompts": len(self.problems),
            "answered": len({each.problem.problem_id for each in said}),
            "usd": sum(each.usd for each in said),
        }
        return Outcome(summary=summary, tokens=float(tokens), flops=flops)

    def _say_what_was_kept(self) -> None:
        directory = stage_named(self.out, "answers")
        summary = read_json(directory / "DONE.json")["summary"]
        dropped = ", ".join(f"{name} {number:,}" for name, number in summary["dropped"].items()) or "none"
        cost = f", ${summary['usd']:.4f}" if summary["usd"] else ""
        left = summary["prompts"] - summary["answered"]
        missing = f" {left:,} of {summary['prompts']:,} prompts have no answer." if left else ""
        self.say(
            f"{self.teacher.name}: {summary['kept']:,} of {summary['asked']:,} answers are kept (dropped: "
            f"{dropped}{cost}); examples are in {directory / 'card.md'}.{missing}"
        )

    def _read_by_teacher(self, directory: Path, *, sequences: Sequence[TrainedSequence]) -> Outcome:
        return store_top_k(
            directory,
            self._load_teacher(),
            sequences,
            self.recipe,
            vocab_size=self._vocab_size,
            pad_id=self.base.tokenizer.pad_id,
        )

    def _load_teacher(self) -> Transformer:
        assert self.teacher.model_dir is not None
        model = load_model(self.teacher.model_dir, dtype=self.machine.compute_dtype)
        return model.requires_grad_(False)

    @property
    def _vocab_size(self) -> int:
        assert self.teacher.model_dir is not None
        return min(self.base.config.vocab_size, load_config(self.teacher.model_dir).vocab_size)

    def _split_prompts(self, *, answer_tokens: int, context: int) -> ExampleSplit:
        """Prompts as sequences of which nothing is trained."""
        base = self.base
        problems = require_room(
            self.problems,
            base.tokenizer,
            template=base.template,
            answer_tokens=answer_tokens,
            context=context,
        )
        rendered = dict.fromkeys(
            tuple(prompt_ids(each, base.tokenizer, template=base.template)) for each in problems
        )
        held = set(hold_out(rendered, most=self.recipe.eval_examples, source=Path(self.recipe.prompts)))

        def side(*, is_held_out: bool) -> tuple[TrainedSequence, ...]:
            return tuple(
                TrainedSequence(ids=ids, trained=(False,) * len(ids))
                for ids in rendered
                if (ids in held) is is_held_out
            )

        return ExampleSplit(training=side(is_held_out=False), held_out=side(is_held_out=True))


def _card(story: _Story, run: SftRun, command: str, result: DistillResult) -> ModelCard:
    recipe, path = story.recipe, Path(story.recipe.prompts)
    what = {
        DistillKind.SFT: "on the teacher's answers",
        DistillKind.LOGITS: f"towards its {recipe.top_k} likeliest tokens at each place of its answers",
        DistillKind.ON_POLICY: "towards its distributions over the student's own answers",
    }[recipe.method]
    name = "loss" if recipe.method is DistillKind.SFT else f"{recipe.distill_config().direction} KL"
    tokens = done_number(stage_named(story.out, "sft"), "tokens")
    return ModelCard(
        name=f"{story.base.name}-distilled",
        datasets=(f"Prompts of {path.name} ({story.hashes['prompts']}), answered by {story.teacher.name}",),
        stages=(
            f"Began as {story.base.name}.",
            f"Distilled from {story.teacher.name}, {recipe.what_learns}, {what}: {run.recipe.steps} steps of "
            f"{recipe.batch_size}, {tokens:,.0f} tokens, peak learning rate {recipe.learning_rate:g}.",
        ),
        scores={
            f"held-out {name} before ({result.num_held_out}, nats per token)": result.loss_before,
            f"held-out {name} after ({result.num_held_out}, nats per token)": result.loss_after,
        },
        command=command or None,
    )
