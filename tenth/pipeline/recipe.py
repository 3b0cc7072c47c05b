"""The recipe of an R1-Zero run: every knob, its default and its check.

Why: the schema is the documentation. A TOML file gives values, `key=value` overrides them, the resolved
whole is saved with the run (base/config.py does the reading). Units stand in the names; names of RL knobs
are TRL's.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from tenth.base.config import Section
from tenth.tokenizer.chat import Template
from tenth.training.advantages import RewardScale
from tenth.training.grpo_loss import LossType
from tenth.training.optim import OptimKind


class FamilySection(Section):
    """One problem family and how hard it gets."""

    name: str
    document_levels: tuple[int, int]  # what the base's documents solve, both ends included
    levels: tuple[int, int]  # what RL trains on and the test asks

    @model_validator(mode="after")
    def _levels_rise(self) -> "FamilySection":
        for key, (low, high) in (("document_levels", self.document_levels), ("levels", self.levels)):
            if low > high:
                raise ValueError(f"{key} = [{low}, {high}] must be [lowest, highest]; swap the two.")
        return self


class DocumentsSection(Section):
    """The base's corpus: generated worked solutions, and text files if any are named."""

    tokens: int = Field(8_000_000, ge=10_000)
    vocab_size: int = Field(512, ge=267)
    think_share: float = Field(1 / 3, ge=0, le=1)  # of the solutions: step by step; the rest answer directly
    mistake_share: float = Field(0.10, ge=0, le=1)  # of all solutions: a wrong answer, unnoticed
    corrected_share: float = Field(
        0.05, ge=0, le=1
    )  # of the step-by-step ones: a slip that is noticed and redone
    untagged_share: float = Field(0.15, ge=0, le=1)  # of all: the answer without its tags
    boxed_share: float = Field(0.0, ge=0, le=1)  # of the untagged ones: a sentence with \\boxed{}
    narrated_share: float = Field(0.0, ge=0, le=1)  # of the step-by-step ones: a word in front of each step
    mixed_share: float = Field(0.0, ge=0, le=1)  # of the narrated ones: in both languages, step by step
    small_talk_share: float = Field(0.0, ge=0, lt=1)  # of the tokens: general questions
    text_files: tuple[str, ...] = ()  # .txt, .jsonl with `text`, .gz of both
    text_share: float = Field(0.0, ge=0, lt=1)  # of the tokens, from text_files
    held_out_share: float = Field(0.01, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _text_has_a_share(self) -> "DocumentsSection":
        if bool(self.text_files) != (self.text_share > 0):
            raise ValueError(
                f"text_files names {len(self.text_files)} files and text_share = {self.text_share}; "
                "set both or neither."
            )
        if self.text_share + self.small_talk_share >= 1:
            raise ValueError(
                f"text_share = {self.text_share} and small_talk_share = {self.small_talk_share} leave no "
                "solutions; lower one."
            )
        return self


class OptimSection(Section):
    """One optimizer's settings."""

    kind: OptimKind = OptimKind.MUON
    lr: float = Field(3e-3, gt=0)
    muon_lr: float | None = None
    weight_decay: float = Field(0.1, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)


class PretrainSection(Section):
    """Pre-training of the base (DeepSeek-V3 section 4.2, scaled down)."""

    tokens: int = Field(12_000_000, ge=1)
    sequence_length: int = Field(256, ge=8)
    sequences_per_step: int = Field(32, ge=1)
    ramp_from_sequences: int = Field(16, ge=1)
    ramp_share: float = Field(0.05, ge=0, le=1)  # of the steps
    warmup_share: float = Field(0.02, ge=0, le=1)
    constant_until: float = Field(0.6, ge=0, le=1)
    floor: float = Field(0.05, ge=0, le=1)
    mtp_weight: tuple[float, float] = (0.3, 0.1)  # lambda before and after two thirds of the tokens
    optim: OptimSection = OptimSection()


def _can_teach(num_generations: int) -> int:
    if num_generations < 2:
        raise ValueError(
            f"num_generations = {num_generations}, but an answer is judged against its group's mean, so a "
            "group needs at least 2; set it to 8 or more."
        )
    return num_generations


GroupSize = Annotated[int, AfterValidator(_can_teach)]


class RlSection(Section):
    """R1-Zero: GRPO with verifiable rewards."""

    steps: int = Field(60, ge=1)
    prompts_per_step: int = Field(32, ge=1)
    num_generations: GroupSize = 16  # per prompt: the group
    minibatch_size: int = Field(512, ge=1)
    max_completion_length: int = Field(160, ge=1)
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(0.001, ge=0)
    reference_refresh_steps: int = Field(20, ge=1)
    epsilon: float = Field(0.2, gt=0)
    epsilon_high: float | None = None
    loss_type: LossType = LossType.GRPO
    scale_rewards: RewardScale = RewardScale.GROUP
    num_iterations: int = Field(1, ge=1)
    mask_truncated: bool = False
    overlong_buffer: int = Field(0, ge=0)
    dynamic_sampling: bool = False  # draw again for groups without signal, up to twice the prompts
    accuracy_weight: float = Field(1.0, ge=0)
    format_weight: float = Field(0.2, ge=0)
    language_weight: float = Field(0.0, ge=0)  # words of the thinking in the question's language (eq. 7)
    # "file.py:function" with TRL's signature -> weight
    reward_functions: dict[str, float] = Field(default_factory=dict)
    optim: OptimSection = OptimSection(kind=OptimKind.ADAMW, lr=1e-4, weight_decay=0.0)
    warmup_steps: int = Field(5, ge=0)
    micro_batch_tokens: int = Field(8192, ge=64)

    @model_validator(mode="after")
    def _rewards_exist(self) -> "RlSection":
        weights = (self.accuracy_weight, self.format_weight, self.language_weight)
        if not any(weights) and not self.reward_functions:
            raise ValueError(
                "accuracy_weight, format_weight and language_weight are all 0, so nothing is rewarded; "
                "raise one."
            )
        return self


class EvalSection(Section):
    """How models are measured (R1 section 3, appendix D.1)."""

    problems_per_family: int = Field(48, ge=1)
    samples: int = Field(4, ge=1)  # k of pass@1 averaged over k
    base_samples: int = Field(16, ge=1)  # of the base's template-sampled mode, for pass@16
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    problem_file: str | None = None  # committed hashes that the test set must match


class ControlsSection(Section):
    """What else could explain the gain; run by `make run-controls`."""

    enabled: bool = False


class FlowName(StrEnum):
    """Which story a run tells."""

    ZERO = "zero"  # R1-Zero alone
    R1 = "r1"  # all of it, R1-Zero first


class ZeroRecipe(Section):
    """Everything that decides an R1-Zero run."""

    name: str
    flow: FlowName = FlowName.ZERO
    seed: int = 1
    model: str = "tiny-zero"
    template: Template = Template.ZERO_SHORT
    families: tuple[FamilySection, ...] = Field(min_length=1)
    problem_files: tuple[str, ...] = ()  # .jsonl or .parquet: RL trains on them too, the test asks them too
    documents: DocumentsSection = DocumentsSection()
    pretrain: PretrainSection = PretrainSection()
    rl: RlSection = RlSection()
    eval: EvalSection = EvalSection()
    controls: ControlsSection = ControlsSection()
    price_usd_per_hour: float = Field(0.10, ge=0)  # two cloud cores; a setting, not a measurement
    checkpoint_every_seconds: float = Field(60.0, gt=0)
    keep_checkpoints: int = Field(2, ge=1)

    @property
    def asked(self) -> tuple[FamilySection, ...]:
        """What RL trains on and the test asks: the families and the problem files (one level each)."""
        files = (
            FamilySection(name=path, document_levels=(0, 0), levels=(0, 0)) for path in self.problem_files
        )
        return (*self.families, *files)

    @property
    def all_rls(self) -> tuple[RlSection, ...]:
        """Every reinforcement of the flow."""
        return (self.rl,)

    @property
    def answer_lengths(self) -> dict[str, int]:
        """How long answers may get, by the key that says so."""
        return {"rl.max_completion_length": self.rl.max_completion_length}

    @property
    def templates(self) -> tuple[Template, ...]:
        """How questions are written down."""
        return (self.template,)

    @property
    def models(self) -> tuple[str, ...]:
        """The presets of all networks that are trained."""
        return (self.model,)
