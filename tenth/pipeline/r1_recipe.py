"""The recipe of the whole R1 flow: R1-Zero's recipe, and a section for every stage behind it.

Why: the same recipe with other numbers is what a large run needs; the paper's numbers stand beside the keys.
DeepSeek-R1 (arXiv:2501.12948v2), section 3 and appendix B. Defaults are those of the tiny run.
File names in it are relative to the recipe's own folder, except `problem_files`.
Not here: R1-Zero's sections (recipe.py), asking an endpoint (r1_endpoints.py), reading files (r1_files.py).
"""

from pydantic import Field, model_validator

from tenth.base.config import Section
from tenth.base.errors import ConfigError
from tenth.endpoint.settings import EndpointSettings, Prices
from tenth.pipeline.recipe import FlowName, OptimSection, PretrainSection, RlSection, ZeroRecipe
from tenth.tokenizer.chat import Template
from tenth.training.optim import OptimKind


class SftSection(Section):
    """Supervised fine-tuning (B.3.2: 2-3 epochs, cosine 5e-5 to 5e-6, batch 128)."""

    epochs: float = Field(2.0, gt=0)
    batch_size: int = Field(128, ge=1)  # examples
    warmup_share: float = Field(0.05, ge=0, lt=1)
    floor: float = Field(0.1, ge=0, le=1)  # of the rate, where the cosine ends
    optim: OptimSection = OptimSection(kind=OptimKind.ADAMW, lr=1e-3, weight_decay=0.0)
    micro_batch_tokens: int = Field(8192, ge=64)


class StudentSftSection(SftSection):
    """Fine-tuning of a student (F.1: 2-3 epochs)."""

    epochs: float = Field(3.0, gt=0)


class ReadableSection(Section):
    """What a kept sample may look like (B.3.2, B.3.3)."""

    min_language: float = Field(0.99, ge=0, le=1)  # words of the thinking in the question's language
    max_repetition: float = Field(0.3, ge=0, le=1)  # share of lines that stood there before
    max_paragraph_chars: int = Field(400, ge=1)
    max_tokens: int | None = None


class PricesSection(Section):
    """Dollars per million tokens, as in the provider's list; thoughts are output."""

    hit_usd: float  # of the prompt, found in the provider's cache
    miss_usd: float  # the rest of the prompt
    output_usd: float


class EndpointSection(Section):
    """A model behind an OpenAI-compatible API. The key stands in an environment variable, never here."""

    base_url: str
    model: str
    max_tokens: int = Field(8192, ge=1)  # of a reply, thoughts included; the budget counts with the longest
    key_variable: str | None = None
    prices: PricesSection | None = None
    budget_usd: float | None = None  # of all that the run ever asks it for; needs prices
    concurrency: int = 8

    @model_validator(mode="after")
    def _can_be_asked(self) -> "EndpointSection":
        try:
            self.settings()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def settings(self) -> EndpointSettings:
        """What a client needs."""
        values = self.model_dump(exclude={"max_tokens", "prices"})
        prices = None if self.prices is None else Prices(**self.prices.model_dump())
        return EndpointSettings(**values, prices=prices)


class ColdStartSection(Section):
    """R1-Zero's own answers, the right and readable ones, rewritten (B.3.2: thousands of prompts, T = 1)."""

    prompts: int = Field(1024, ge=1)
    samples: int = Field(4, ge=1)  # per prompt
    temperature: float = Field(1.0, gt=0)
    max_completion_length: int = Field(160, ge=1)
    readable: ReadableSection = ReadableSection(min_language=0.0)  # the rewriting mends the language
    rewritten: ReadableSection = ReadableSection()
    rewriter: EndpointSection | None = None  # who writes the readable form; None: a template
    sft: SftSection = SftSection()


class RejectionSection(Section):
    """The SFT set from the first RL checkpoint, general data mixed in (B.3.3: 600 K and 200 K)."""

    prompts: int = Field(4096, ge=1)
    samples: int = Field(4, ge=1)
    temperature: float = Field(1.0, gt=0)
    max_completion_length: int = Field(160, ge=1)
    keep_per_prompt: int = Field(1, ge=1)
    max_domain_ratio: float = Field(2.0, ge=1)  # a domain's rows, times those of the median domain
    general_share: float = Field(0.22, ge=0, lt=1)  # of all rows (table 5: 22.1 %)
    general_files: tuple[str, ...] = ()  # conversations, instead of the toy ones; each once
    judge: EndpointSection | None = None  # of problems whose rows say {"verifier": "judge"}
    readable: ReadableSection = ReadableSection()
    sft: SftSection = SftSection()


class RewardModelSection(Section):
    """Helpful (pairwise) and safe (pointwise) reward models (section 3.1; batch 256, 6e-6, one epoch)."""

    pairs: int = Field(2000, ge=10)
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(64, ge=1)
    held_out_share: float = Field(0.1, gt=0, lt=0.5)
    optim: OptimSection = OptimSection(kind=OptimKind.ADAMW, lr=1e-3, weight_decay=0.0)
    micro_batch_tokens: int = Field(8192, ge=64)


class R1RewardModelSection(RewardModelSection):
    """And the preferences of R1's own; what they ask is then asked in the last part of its reinforcement."""

    helpful_files: tuple[str, ...] = ()  # instead of `pairs` toy ones, all that they hold
    safe_files: tuple[str, ...] = ()


class ReasoningRlSection(RlSection):
    """RL of reasoning that keeps to the question's language (3.2.1; B.4.2: a wide clip)."""

    steps: int = Field(40, ge=1)
    language_weight: float = Field(0.2, ge=0)
    epsilon: float = Field(10.0, gt=0)


class AllScenariosSection(ReasoningRlSection):
    """RL for all scenarios (3.2.2: T = 0.7, 1,700 steps, preference rewards in the last 400 alone)."""

    steps: int = Field(30, ge=1)
    temperature: float = Field(0.7, gt=0)
    preference_steps: int = Field(10, ge=0)  # the last ones: general prompts, judged by the reward models
    general_share: float = Field(0.25, ge=0, le=1)  # of the prompts of those steps
    helpful_weight: float = Field(0.5, ge=0)
    safe_weight: float = Field(0.5, ge=0)

    @model_validator(mode="after")
    def _preference_ends_the_stage(self) -> "AllScenariosSection":
        if self.preference_steps > self.steps:
            raise ValueError(
                f"preference_steps = {self.preference_steps} is more than steps = {self.steps}; lower it."
            )
        return self


class StudentSection(Section):
    """A dense student of R1's answers, and the same student reinforced instead (section 4; F.1)."""

    model: str = "tiny-student"
    prompts: int = Field(8192, ge=1)  # asked of R1; only right answers are kept
    samples: int = Field(1, ge=1)
    temperature: float = Field(0.6, gt=0)
    pretrain: PretrainSection = PretrainSection()
    sft: StudentSftSection = StudentSftSection()
    rl: RlSection = RlSection()  # the control; its steps follow from the compute that distillation took
    control: bool = True


class R1Recipe(ZeroRecipe):
    """Everything that decides an R1 run."""

    flow: FlowName = FlowName.R1
    cold_start: ColdStartSection = ColdStartSection()
    reasoning_rl: ReasoningRlSection = ReasoningRlSection()
    rejection: RejectionSection = RejectionSection()
    reward_model: R1RewardModelSection = R1RewardModelSection()
    all_rl: AllScenariosSection = AllScenariosSection()
    student: StudentSection = StudentSection()

    @property
    def all_rls(self) -> tuple[RlSection, ...]:
        """Every reinforcement of the flow."""
        return (self.rl, self.reasoning_rl, self.all_rl, self.student.rl)

    @property
    def answer_lengths(self) -> dict[str, int]:
        """How long answers may get, by the key that says so."""
        lengths = {
            "cold_start": self.cold_start.max_completion_length,
            "reasoning_rl": self.reasoning_rl.max_completion_length,
            "rejection": self.rejection.max_completion_length,
            "all_rl": self.all_rl.max_completion_length,
            "student.rl": self.student.rl.max_completion_length,
        }
        named = {f"{section}.max_completion_length": length for section, length in lengths.items()}
        return super().answer_lengths | named

    @property
    def templates(self) -> tuple[Template, ...]:
        """How questions are written down."""
        return (self.template, Template.DEEPSEEK)

    @property
    def models(self) -> tuple[str, ...]:
        """The presets of all networks that are trained."""
        return (self.model, self.student.model)
