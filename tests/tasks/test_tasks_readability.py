"""What counts as readable: the expected values are counted by hand."""

import pytest

from tenth.tasks.narration import translate
from tenth.tasks.readability import FAULTS, ReadableLimits, faults, repetition

LIMITS = ReadableLimits(min_language=0.9, max_repetition=0.3, max_paragraph_chars=40, max_tokens=50)


def r1(thinking: str, summary: str = "The answer is \\boxed{7}.") -> str:
    return f"<think>\n{thinking}\n</think>\n{summary}"


def zero(thinking: str, answer: str = "7") -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def found(text: str, language: str = "en", *, tokens: int = 10) -> tuple[str, ...]:
    return faults(text, language, tokens=tokens, limits=LIMITS)


@pytest.mark.parametrize("write", [r1, zero])
def test_a_plain_answer_has_no_fault_in_either_shape(write):
    assert found(write("first 3+4=7\nso 7")) == ()


def test_thinking_without_any_word_is_in_every_language():
    assert found(zero("3+4=7"), "en") == found(zero("3+4=7"), "zh") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is \\boxed{7}.",
        "<think>3+4=7",
        "3+4=7</think>7",
        "</think>3+4=7<think>7",
        "<think>a</think><think>b</think>7",
        "So: <think>3+4=7</think>7",
    ],
)
def test_tags_that_are_missing_twofold_or_out_of_order_are_a_fault(text):
    assert found(text) == ("tags",)


@pytest.mark.parametrize("text", [r1("3+4=7", ""), r1("3+4=7", " \n"), zero("3+4=7", " ")])
def test_nothing_behind_the_thinking_is_an_empty_summary(text):
    assert found(text) == ("empty_summary",)


def test_a_line_seen_before_counts_as_repetition():
    assert repetition("a\nb\na\n\na") == 0.5  # four lines, the last two seen before
    assert repetition("") == repetition("once") == 0.0
    assert repetition("9-9=0\n0+9=9\n9-9=0") == 0.0  # said once more is no loop


def test_a_loop_that_never_breaks_a_line_counts_as_repetition():
    # 40 words are 29 runs of twelve; beginning with "so" or with "wait", only two of them are new
    assert repetition("so wait " * 20) == pytest.approx(27 / 29)
    assert found(zero("ha" * 18)) == ()  # 36 letters: too short to be sure
    assert "repetition" in found(zero("ha" * 100))


def test_steps_of_one_form_are_no_repetition():
    assert repetition("\n".join(f"{i}+1={i + 1}" for i in range(9))) == 0.0


def test_words_of_another_language_are_a_fault_above_their_share():
    assert found(zero("first 3+4=7\n所以 7"), "en") == ("language",)  # one word of three
    assert found(zero("首先3+4=7\n所以7"), "zh") == ()
    assert found(zero(translate("first 3+4=7\n所以7", language="zh")), "zh") == ()


def test_a_summary_in_the_wrong_language_is_a_fault_and_its_answer_has_no_language():
    assert found(r1("3+4=7", "答案是\\boxed{7}。"), "en") == ("language",)
    assert found(r1("3+4=7", "答案是\\boxed{true}。"), "zh") == ()
    assert found(zero("3+4=7", "true"), "zh") == ()


def test_a_program_in_the_summary_has_no_language_and_is_no_fault():
    assert found(r1("3+4=7", "```python\nprint(7)\n```"), "zh") == ()
    assert found(r1("3+4=7", "So:\n```python\nprint(7)\n```"), "zh") == ("language",)
    assert found(r1("3+4=7", "```python\nprint(7)"), "zh") == ("language",)  # a block that never ends


def test_a_language_without_a_rule_is_not_judged():
    assert found(zero("drei und 四 ist sieben"), "de") == ()


def test_bytes_that_are_no_character_are_a_fault_wherever_they_stand():
    broken = "答案".encode()[:-1].decode(errors="replace")
    assert found(r1("3+4=7", f"{broken}\\boxed{{7}}"), "zh") == ("garbled",)
    assert found(zero(f"3+4=7{broken}"), "zh") == ("garbled",)


def test_a_line_over_the_limit_is_a_long_paragraph():
    line = "one two three four five six seven eight."  # 40 characters
    assert len(line) == 40
    assert found(zero(line)) == ()
    assert found(zero(line + "!")) == ("paragraph",)


def test_a_code_block_is_a_fault_in_the_thinking_alone():
    assert found(r1("```\nprint(7)\nx=7")) == ("code_block",)
    assert found(r1("3+4=7", "Run ```print(7)```.")) == ()


def test_more_tokens_than_allowed_are_a_fault_and_no_limit_allows_any():
    assert found(zero("3+4=7"), tokens=50) == ()
    assert found(zero("3+4=7"), tokens=51) == ("length",)
    unlimited = ReadableLimits(min_language=0, max_repetition=1, max_paragraph_chars=9)
    assert faults(zero("3+4=7"), "en", tokens=10**6, limits=unlimited) == ()


def test_several_faults_come_in_their_fixed_order():
    text = r1("```\n```\n```\n" + "所以" * 30 + "\ufffd", "")
    assert found(text, tokens=99) == FAULTS[1:]
