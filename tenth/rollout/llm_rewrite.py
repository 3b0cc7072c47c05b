"""Solutions rewritten by a model into thinking that people can follow, and a summary.

DeepSeek-R1 (arXiv:2501.12948v2) B.3.2: DeepSeek-V3 brings R1-Zero's thinking into a natural style and the
question's language, and a prompt of its own makes a summary that adds no step.
In:  questions and solutions.  Out: thinking and summary, or None where the reply has no such two parts.
Whether the result is still right and readable is for the rules to say, and they must be asked again.
Not here: rewriting by template (pipeline/cold_start.py), who answers (responder.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from tenth.base.records import AskParams, Message, Problem, Role
from tenth.rollout.responder import Responder
from tenth.tasks.shape import write_r1
from tenth.tokenizer.chat import Answer

REWRITE_PARAMS = AskParams(max_tokens=16384)
_LANGUAGES: Mapping[str, str] = MappingProxyType({"en": "English", "zh": "Chinese"})
_PARTS = re.compile(r"\s*<reasoning>(.*)</reasoning>\s*<summary>(.*)</summary>\s*", flags=re.DOTALL)
_TAGS = re.compile(r"</?(?:reasoning|summary|think|answer)>")

# Own names for the two parts: servers cut <think> out of what a model writes.
_PROMPT = """\
Below are a question and notes that lead to its answer. Write them anew for a reader.

First the reasoning, in {language} throughout, in the first person, in whole sentences and short paragraphs: \
the same steps in the same order, doubts and corrections included. Add no step, leave out none that matters, \
and change no result, even if you would do it otherwise. No headings, no code blocks.
Then a summary in {language}: how the answer follows, in a few sentences that hold nothing new, with the \
final answer once in \\boxed{{}}.

Question:
{question}

Notes:
{thinking}

Answer of the notes:
{answer}

Reply in exactly this form:
<reasoning>
...
</reasoning>
<summary>
...
</summary>"""


def rewrite_reasoning(
    responder: Responder,
    problems: Sequence[Problem],
    answers: Sequence[Answer],
    *,
    params: AskParams = REWRITE_PARAMS,
) -> list[Answer | None]:
    """Thinking and summary for each; the i-th answer is the solution of the i-th problem."""
    conversations = [
        [Message(role=Role.USER, content=_prompt(problem, answer))]
        for problem, answer in zip(problems, answers, strict=True)
    ]
    if not conversations:
        return []
    replies = responder.respond(conversations, replace(params, n=1))
    return [None if reply.error else _parts(reply.text) for (reply,) in replies]


class Rewriter:
    """The same in the shape that a cold start asks for: R1's text, or None."""

    def __init__(self, responder: Responder, *, params: AskParams = REWRITE_PARAMS) -> None:
        self._responder, self._params = responder, params

    def __call__(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[str | None]:
        """One text per solution."""
        parts = rewrite_reasoning(self._responder, problems, answers, params=self._params)
        return [None if each is None else write_r1(each.thinking or "", each.answer) for each in parts]


def _prompt(problem: Problem, answer: Answer) -> str:
    return _PROMPT.format(
        language=_LANGUAGES.get(problem.language, problem.language),
        question=problem.prompt,
        thinking=(answer.thinking or "").strip(),
        answer=answer.answer.strip(),
    )


def _parts(text: str) -> Answer | None:
    found = _PARTS.fullmatch(text)
    if found is None:
        return None
    thinking, summary = found[1].strip(), found[2].strip()
    is_clean = bool(thinking and summary) and not _TAGS.search(thinking + summary)
    return Answer(thinking, summary) if is_clean else None
