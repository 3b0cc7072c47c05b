"""What can be set when a model is measured.

The defaults are R1's protocol (arXiv:2501.12948v2, appendix D.1).
"""

from pydantic import Field, model_validator

from tenth.base.config import Section


class EvalRecipe(Section):
    """`tenth eval ... key=value`."""

    temperature: float = Field(0.6, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int | None = Field(
        None, ge=1
    )  # of one answer, thinking included; None: what the model allows
    samples: int = Field(1, ge=1)  # k of pass@1 averaged over k
    limit: int | None = Field(None, ge=1)  # questions per suite, evenly from the whole file; None: all
    shots: int = Field(0, ge=0, le=5)  # solved examples before the question, where the suite has them
    seed: int = 1
    batch: int = Field(64, ge=1)  # answers asked for at once; what is not whole when one stops is asked again

    @model_validator(mode="after")
    def _samples_differ(self) -> "EvalRecipe":
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(
                f"samples = {self.samples}, but temperature = 0 gives the same answer each time; set "
                "samples=1 or a temperature above 0."
            )
        return self

    @property
    def answers_depend_on(self) -> dict[str, float | int | None]:
        """The settings under which answers may stand side by side."""
        names = ("temperature", "top_p", "max_tokens", "shots", "seed")
        return {name: getattr(self, name) for name in names}
