"""The special tokens: what they are called, in which order they are numbered, which ones text may contain.

Why: the order fixes the first ids of every vocabulary we train (bos is 0, eos is 1), so a checkpoint and a
tokenizer of different runs agree on them. The strings with full-width bars are DeepSeek-V3's own.
Not here: how text becomes ids (tokenizer.py), which token stands where in a conversation (chat.py).
"""

from enum import StrEnum

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"  # also the padding token, as in DeepSeek-V3
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
FIM_BEGIN, FIM_HOLE, FIM_END = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"

TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)
SPECIAL_TOKENS = (BOS, EOS, USER, ASSISTANT, *TAGS, FIM_BEGIN, FIM_HOLE, FIM_END)  # index = id


class Trust(StrEnum):
    """Which special strings inside a text become single ids; all others stay ordinary characters."""

    ALL = "all"  # text we wrote ourselves
    TAGS = "tags"  # what an assistant or a document may say: think and answer tags, never a role or an end
    NONE = "none"  # text of a user, who must not be able to close a thought or change the speaker
