"""Solutions rewritten by a model into thinking that people can follow, and a summary.

DeepSeek-R1 (arXiv:2501.12948v2) B.3.2: DeepSeek-V3 brings R1-Zero's thinking into a natural style and the
question's language, and a prompt of its own makes a summary that adds no step.
A program, or a reply under instructions, is its own summary: no model may touch it.
In:  questions and solutions.  Out: thinking and summary, or None where the reply has no such parts.
Whether the result is still right and readable is for the rules to say, and they must be asked again.
Not here: rewriting by template (pipeline/cold_start.py), who answers (responder.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from tenth.base.records import AskParams, Message, Problem, Role
from tenth.rollout.responder import Responder
from tenth.tasks.judge import is_whole, summary_of
from tenth.tasks.shape import write_r1
from tenth.tokenizer.chat import Answer

REWRITE_PARAMS = AskParams(max_tokens=16384)
_LANGUAGES: Mapping[str, str] = MappingProxyType({"en": "English", "zh": "Chinese"})
_PARTS = re.compile(r"\s*<reasoning>(.*)</reasoning>\s*(?:<summary>(.*)</summary>\s*)?", flags=re.DOTALL)
_TAGS = re.compile(r"</?(?:reasoning|summary|think|answer)>")

# Own names for the parts: servers cut <think> out of what a model writes.
_PROMPT = """\
Below are a question and notes that lead to its answer. Write them anew for a reader.

First the reasoning, in {language} throughout, in the first person, in whole sentences and short paragraphs: \
the same steps in the same order, doubts and corrections included. Add no step, leave out none that matters, \
and change no result, even if you would do it otherwise. No headings, no code blocks.
{summary}
Question:
{question}

Notes:
{thinking}

Answer of the notes:
{answer}

Reply in exactly this form:
<reasoning>
...
</reasoning>{form}"""
_SUMMARY = """\
Then a summary in {language}: how the answer follows, in a few sentences that hold nothing new, with the \
final answer once in \\boxed{{}}.
"""
_SUMMARY_FORM = "\n<summary>\n...\n</summary>"


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
    return [
        None if reply.error else _parts(problem, answer, reply.text)
        for problem, answer, (reply,) in zip(problems, answers, replies, strict=True)
    ]


class Rewriter:
    """The same in the shape that a cold start asks for: R1's text, or None."""

    def __init__(self, responder: Responder, *, params: AskParams = REWRITE_PARAMS) -> None:
        self._responder, self._params = responder, params

    def __call__(self, problems: Sequence[Problem], answers: Sequence[Answer]) -> list[str | None]:
        """One text per solution."""
        parts = rewrite_reasoning(self._responder, problems, answers, params=self._params)
        return [None if each is None else write_r1(each.thinking or "", each.answer) for each in parts]


def _prompt(problem: Problem, answer: Answer) -> str:
    language, is_done = _LANGUAGES.get(problem.language, problem.language), is_whole(problem)
    return _PROMPT.format(
        language=language,
        summary="" if is_done else _SUMMARY.format(language=language),
        question=problem.prompt,
        thinking=(answer.thinking or "").strip(),
        answer=answer.answer.strip(),
        form="" if is_done else _SUMMARY_FORM,
    )


def _parts(problem: Problem, answer: Answer, text: str) -> Answer | None:
    found = _PARTS.fullmatch(text)
    if found is None:
        return None
    thinking = found[1].strip()
    summary = summary_of(problem, answer.answer) if is_whole(problem) else (found[2] or "").strip()
    is_clean = bool(thinking and summary) and not _TAGS.search(thinking + (found[2] or ""))
    return Answer(thinking, summary) if is_clean else None
