"""The settings of `tenth rl`, `tenth sft` and `tenth distill`: every knob, its default and its check.

Why: somebody with a model and a file should need no recipe, so all knobs are flat and have defaults that
others have settled on; names are TRL's where TRL has one. None: chosen from the model and the data before
the run begins, and written down resolved.
"""

from enum import StrEnum

from pydantic import Field, model_validator

from tenth.base.config import Section, build_recipe
from tenth.pipeline.recipe import GroupSize, RlSection
from tenth.training.advantages import RewardScale
from tenth.training.distill import Direction, DistillConfig
from tenth.training.grpo_loss import LossType
from tenth.training.optim import OptimConfig, OptimKind


class TuneRecipe(Section):
    """What both commands know."""

    model: str
    seed: int = 1
    learning_rate: float = Field(gt=0)
    optimizer: OptimKind = OptimKind.ADAMW
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    lora_rank: int | None = Field(None, ge=1)  # None: all weights learn
    lora_alpha: float | None = Field(None, gt=0)  # None: twice the rank
    lora_targets: tuple[str, ...] = ()  # (): default_targets of model/lora_places.py
    micro_batch_tokens: int = Field(8192, ge=64)
    price_usd_per_hour: float | None = Field(None, ge=0)
    checkpoint_every_seconds: float = Field(60.0, gt=0)
    keep_checkpoints: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _adapter_settings_need_one(self) -> "TuneRecipe":
        if self.lora_rank is None and (self.lora_alpha is not None or self.lora_targets):
            raise ValueError("lora_alpha and lora_targets are of an adapter; give --lora RANK, too.")
        return self

    @property
    def what_learns(self) -> str:
        """As a model card says it."""
        return "all weights" if self.lora_rank is None else f"a LoRA adapter of rank {self.lora_rank}"

    def optim_config(self) -> OptimConfig:
        """The optimizer as training knows it."""
        return OptimConfig(
            kind=self.optimizer,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
        )


class RlRecipe(TuneRecipe):
    """`tenth rl`: GRPO on a problem file."""

    tasks: str
    rewards: dict[str, float] = Field(
        default_factory=dict
    )  # "file.py:function" with TRL's signature -> weight
    accuracy_weight: float | None = Field(
        None, ge=0
    )  # None: 1 where the file has answers and rewards is empty
    format_weight: float = Field(0.0, ge=0)  # of <think>...</think> <answer>...</answer>
    language_weight: float = Field(0.0, ge=0)  # of thinking in the row's `language`: en or zh
    reward_timeout_seconds: float = Field(60.0, gt=0)  # for all answers of a step
    steps: int = Field(100, ge=1)
    prompts_per_step: int = Field(16, ge=1)
    num_generations: GroupSize = 8  # per prompt: the group
    minibatch_size: int | None = Field(None, ge=1)  # None: all rollouts of a step, so one update
    max_completion_length: int | None = Field(None, ge=1)  # None: 512, or half of the context if that is less
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(0.0, ge=0)  # weight of the KL to the model that was given
    epsilon: float = Field(0.2, gt=0)
    epsilon_high: float | None = None
    loss_type: LossType = LossType.DAPO
    scale_rewards: RewardScale = RewardScale.GROUP
    num_iterations: int = Field(1, ge=1)
    mask_truncated_completions: bool = False
    overlong_buffer: int = Field(0, ge=0)
    dynamic_sampling: bool = False
    warmup_steps: int = Field(0, ge=0)
    eval_problems: int = Field(64, ge=1)  # at most; and at most a tenth of the file
    eval_samples: int = Field(4, ge=1)

    def rl_section(self) -> RlSection:
        """The same as GRPO's stage knows it, once nothing is None. Checks what is checked there, too."""
        values = {
            "steps": self.steps,
            "prompts_per_step": self.prompts_per_step,
            "num_generations": self.num_generations,
            "minibatch_size": self.minibatch_size,
            "max_completion_length": self.max_completion_length,
            "temperature": self.temperature,
            "beta": self.beta,
            "reference_refresh_steps": self.steps,  # never: the reference is the model that was given
            "epsilon": self.epsilon,
            "epsilon_high": self.epsilon_high,
            "loss_type": self.loss_type,
            "scale_rewards": self.scale_rewards,
            "num_iterations": self.num_iterations,
            "mask_truncated": self.mask_truncated_completions,
            "overlong_buffer": self.overlong_buffer,
            "dynamic_sampling": self.dynamic_sampling,
            "accuracy_weight": self.accuracy_weight,
            "format_weight": self.format_weight,
            "language_weight": self.language_weight,
            "reward_functions": self.rewards,
            "optim": {
                "kind": self.optimizer,
                "lr": self.learning_rate,
                "weight_decay": self.weight_decay,
                "max_grad_norm": self.max_grad_norm,
            },
            "warmup_steps": self.warmup_steps,
            "micro_batch_tokens": self.micro_batch_tokens,
        }
        return build_recipe(RlSection, values, source="tenth rl")


class SftRecipe(TuneRecipe):
    """`tenth sft`: supervised fine-tuning on conversations."""

    data: str
    epochs: float = Field(3.0, gt=0)
    steps: int | None = Field(None, ge=1)  # None: from the epochs
    batch_size: int = Field(16, ge=1)  # examples per step
    max_length: int | None = Field(None, ge=2)  # tokens of an example; None: the model's context
    warmup_ratio: float = Field(0.03, ge=0, le=1)  # of the steps; after it a cosine
    lr_floor: float = Field(0.0, ge=0, le=1)  # of the learning rate, where the cosine ends
    packing: bool = True
    eval_examples: int = Field(128, ge=1)  # at most; and at most a tenth of the file
    evaluations: int = Field(10, ge=1)  # of the held-out loss over the run


class DistillKind(StrEnum):
    """What of the teacher the student learns."""

    SFT = "sft"  # its words
    LOGITS = "logits"  # its distributions over its own words
    ON_POLICY = "on-policy"  # its distributions over the student's words


class DistillRecipe(TuneRecipe):
    """`tenth distill`: a student (`model`) learns from a teacher. R1 (arXiv:2501.12948v2) section 4, F.1."""

    teacher: str
    prompts: str
    method: DistillKind = DistillKind.SFT  # --kind
    samples: int = Field(1, ge=1)  # answers of the teacher to each prompt
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_completion_length: int | None = Field(None, ge=1)  # None: the context; of an API 32,768
    min_language: float = Field(0.0, ge=0, le=1)  # words of an answer in the row's `language`
    max_repetition: float = Field(0.3, ge=0, le=1)  # of lines, or of runs of words, in the thinking
    partial: bool = False  # train on what there is when the budget ends
    epochs: float = Field(3.0, gt=0)
    steps: int | None = Field(None, ge=1)  # None: from the epochs
    batch_size: int = Field(64, ge=1)  # examples per step
    max_length: int | None = Field(None, ge=2)  # tokens of an example; None: the student's context
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    lr_floor: float = Field(0.1, ge=0, le=1)  # of the learning rate, where the cosine ends
    packing: bool = True
    eval_examples: int = Field(128, ge=1)  # at most; and at most a tenth of the set
    evaluations: int = Field(10, ge=1)
    top_k: int = Field(64, ge=1)  # of --kind logits: tokens kept of each distribution
    direction: Direction | None = None  # None: forward of logits, reverse of on-policy
    distill_temperature: float = Field(1.0, gt=0)  # both distributions are taken at

    def sft_recipe(self, *, model: str, data: str) -> SftRecipe:
        """The training as `tenth sft` knows it."""
        mine = self.model_dump(include=set(SftRecipe.model_fields))
        return SftRecipe(**mine | {"model": model, "data": data})

    def distill_config(self) -> DistillConfig:
        """The objective of --kind logits and on-policy."""
        default = Direction.REVERSE if self.method is DistillKind.ON_POLICY else Direction.FORWARD
        return DistillConfig(direction=self.direction or default, temperature=self.distill_temperature)
