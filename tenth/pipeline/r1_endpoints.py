"""The models behind endpoints that R1's stages ask: one rewrites the cold start, one judges.

DeepSeek-R1 (arXiv:2501.12948v2), B.3.2 and B.3.3: DeepSeek-V3 did both.
Why: what was paid for belongs to the run, not to a stage. A stage that is made again, for whatever reason,
finds the replies under RUN/replies/ROLE and pays only for what nobody has asked yet.
In:  a section of the recipe.  Out: a rewriter or a judge, its name, what it has cost so far.
Not here: asking (endpoint/), what is said and how replies are read (rollout/llm_rewrite.py, llm_judge.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenth.base.records import AskParams
from tenth.endpoint.client import EndpointClient
from tenth.endpoint.responder import EndpointResponder
from tenth.pipeline.r1_recipe import EndpointSection
from tenth.rollout.llm_judge import AnswerJudge
from tenth.rollout.llm_rewrite import Rewriter

REPLIES = "replies"
_DECIDING = ("base_url", "model", "max_tokens")  # the rest changes no reply


class Helper:
    """One model with one role, `rewriter` or `judge`. Its budget is that of the run and the role."""

    def __init__(self, section: EndpointSection, run_dir: Path, *, role: str) -> None:
        self.name = section.model
        self._client = EndpointClient(section.settings(), run_dir / REPLIES / role)
        self._responder = EndpointResponder(self._client)
        self._params = AskParams(max_tokens=section.max_tokens)

    def rewriter(self) -> Rewriter:
        """As a cold start takes it."""
        return Rewriter(self._responder, params=self._params)

    def judge(self) -> AnswerJudge:
        """Its `judge` is what rejection sampling takes."""
        return AnswerJudge(self._responder, params=self._params)

    def paid(self) -> Mapping[str, Any]:
        """For the card of a set: who was asked, and the dollars of the run so far."""
        return {"model": self.name, "usd": self._client.spent_usd}


def deciding(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What of a dumped section decides results: whoever pays, how much and how fast does not."""
    return None if values is None else {key: values[key] for key in _DECIDING}


def require_key(section: EndpointSection | None) -> None:
    """A ConfigError where the environment lacks the key: better before the first step than behind hours."""
    if section is not None:
        section.settings().key()
