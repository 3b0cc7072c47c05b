"""How a suite's question is put: the question, the form its answer should have, solved examples before it.

Why: a number compares models only if all of them were asked alike. Zero-shot, and the instruction that
DeepSeek recommends for R1: reason step by step, the final answer in a box (README of DeepSeek-R1).
In:  a problem, its suite, solved examples.  Out: a conversation.
Not here: the template in which a model reads it (tokenizer/chat.py).
"""

from collections.abc import Sequence

from tenth.base.records import Message, Problem, Role
from tenth.tasks.suites.rows import WORDS
from tenth.tasks.suites.suite import AnswerKind

_FORMS = {
    ("en", AnswerKind.NUMBER): "Please reason step by step, and put your final answer within \\boxed{}.",
    (
        "en",
        AnswerKind.CHOICE,
    ): "Please reason step by step, and put the letter of your choice within \\boxed{}.",
    (
        "en",
        AnswerKind.WORD,
    ): "Please reason step by step, and put your final answer ({words}) within \\boxed{}.",
    ("zh", AnswerKind.NUMBER): "请逐步推理，并把最终答案写在 \\boxed{} 里。",
}
_ALIKE = {AnswerKind.MATH: AnswerKind.NUMBER, AnswerKind.FAMILY: AnswerKind.NUMBER}


def conversation(
    problem: Problem, kind: AnswerKind, *, examples: Sequence[Problem] = (), is_bare: bool = False
) -> list[Message]:
    """The question as a user's message, with its examples as earlier turns. `is_bare`: without the sentence
    about the answer's form, for a model that was trained on a form of its own."""
    messages = []
    for example in examples:
        messages.append(Message(role=Role.USER, content=_asked(example, kind, is_bare=is_bare)))
        messages.append(Message(role=Role.ASSISTANT, content=f"\\boxed{{{example.answer}}}"))
    return [*messages, Message(role=Role.USER, content=_asked(problem, kind, is_bare=is_bare))]


def same_subject(problem: Problem, examples: Sequence[Problem], *, count: int) -> list[Problem]:
    """The first solved questions of the problem's own subject."""
    subject = problem.metadata.get("subject")
    return [each for each in examples if each.metadata.get("subject") == subject][:count]


def _asked(problem: Problem, kind: AnswerKind, *, is_bare: bool) -> str:
    form = _FORMS.get((problem.language, _ALIKE.get(kind, kind)))
    if is_bare or form is None:
        return problem.prompt
    words = " or ".join(problem.metadata.get(WORDS, ()))
    return f"{problem.prompt}\n{form.replace('{words}', words)}"
