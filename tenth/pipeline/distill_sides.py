"""Who teaches and who learns, and what must fit between the two.

Why: what cannot work is said before the first answer is paid for.
In:  a `Teacher`; a student: a checkpoint, or the name of a preset, which begins with random weights
and takes the vocabulary and the template of its teacher.
Out: a `Base`; one sentence where the two do not fit.
Not here: asking and training (distill.py).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tenth.base.errors import CheckpointError, ConfigError
from tenth.base.files import text_hash
from tenth.base.seeds import stream_seed
from tenth.checkpoint.companions import load_template, load_tokenizer
from tenth.checkpoint.model_dir import load_config, save_model
from tenth.model.counts import count
from tenth.model.presets import PRESETS, preset
from tenth.model.transformer import Transformer, initialise
from tenth.pipeline.settings import rounded_vocabulary
from tenth.pipeline.tune import Base, open_base
from tenth.pipeline.tune_recipe import DistillKind, DistillRecipe
from tenth.rollout.responder import Responder

_START = "student"  # of the run: a preset with random weights
_LR_ADAPTER = 2e-4
# Peak rates of DeepSeek-R1 (arXiv:2501.12948v2), F.1, by size: Qwen 1.5B, 7B, 14B, 32B. (Its Llama 8B: 5e-5.)
_RATES = ((3e9, 1e-4), (1e10, 8e-5), (2e10, 7e-5), (5e10, 6e-5))
_RATE_OF_LARGER = 2e-5  # Llama 70B


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Who is asked."""

    name: str
    identity: str  # whether it is still the same
    model_dir: Path | None  # None: behind an API
    open: Callable[[], AbstractContextManager[Responder]]


def default_rate(student: Path, *, lora_rank: int | None) -> float:
    """The paper's peak rate for a student of this size."""
    if lora_rank is not None:
        return _LR_ADAPTER
    config = preset(str(student)) if _is_preset(student) else load_config(student)
    size = count(config).total_parameters
    return next((rate for limit, rate in _RATES if size <= limit), _RATE_OF_LARGER)


def find_student(student: Path, teacher: Teacher, run_dir: Path, *, seed: int) -> tuple[Base, str]:
    """The student and what identifies it; nothing is written."""
    if not _is_preset(student):
        base = open_base(student)
        return base, base.fingerprint()
    if teacher.model_dir is None:
        raise ConfigError(
            f"a student from scratch ('{student}') takes its vocabulary from its teacher, and {teacher.name} "
            "is behind an API; name a model directory as the student."
        )
    tokenizer = load_tokenizer(teacher.model_dir)
    config = replace(preset(str(student)), vocab_size=rounded_vocabulary(tokenizer.vocab_size))
    template = load_template(teacher.model_dir)
    base = Base(path=run_dir / _START, config=config, tokenizer=tokenizer, template=template)
    return base, text_hash(repr(config), tokenizer.fingerprint(), repr(template), str(seed))


def make_student(base: Base, *, seed: int) -> None:
    """Write what `find_student` described, where it is not there."""
    if base.path.exists():
        return
    generator = torch.Generator().manual_seed(stream_seed(seed, "weights"))
    model = initialise(Transformer(base.config), generator=generator)
    save_model(base.path, model, tokenizer=base.tokenizer, template=base.template)


def require_local(recipe: DistillRecipe, teacher: Teacher) -> None:
    """Words are all that an API gives."""
    if recipe.method is not DistillKind.SFT and teacher.model_dir is None:
        raise ConfigError(
            f"--kind {recipe.method} needs the teacher's distributions, and {teacher.name} is behind an API, "
            "which gives words alone; name a model directory as the teacher, or use --kind sft."
        )


def require_same_vocabulary(base: Base, teacher: Teacher) -> None:
    """Distributions can be compared over the same tokens only."""
    assert teacher.model_dir is not None
    theirs = load_tokenizer(teacher.model_dir)
    if theirs.fingerprint() != base.tokenizer.fingerprint():
        raise CheckpointError(
            f"{base.path} ({base.tokenizer.vocab_size:,} tokens) and {teacher.model_dir} "
            f"({theirs.vocab_size:,} tokens) have different vocabularies, so their distributions cannot be "
            "compared; use --kind sft, or a student with the teacher's vocabulary."
        )


def _is_preset(student: Path) -> bool:
    """Whether it begins with random weights; what is neither a model nor a preset is an error."""
    if student.exists():
        return False
    if str(student) not in PRESETS:
        raise ConfigError(
            f"there is no model at {student}, and no preset of that name; the presets are "
            f"{', '.join(sorted(PRESETS))}."
        )
    return True
