import string

import pytest

from tenth.base.errors import ConfigError, DataError
from tenth.tokenizer.special import SPECIAL_TOKENS
from tenth.tokenizer.train import train_bpe

TEXTS = ["the cat = 1234 - the dog\n\nthe end. 你好世界你好世界"] * 20


def pieces(tokenizer, text):
    return [tokenizer.decode([token_id]) for token_id in tokenizer.encode(text)]


def test_the_smallest_vocabulary_is_specials_and_bytes():
    tokenizer = train_bpe(TEXTS, vocab_size=267)
    assert tokenizer.vocab_size == 267 == len(SPECIAL_TOKENS) + 256
    assert len(tokenizer.encode("the 你")) == 4 + 3


def test_a_vocabulary_without_room_for_every_byte_is_refused():
    with pytest.raises(ConfigError, match=r"vocab_size = 266.*267 or more"):
        train_bpe(TEXTS, vocab_size=266)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_is_refused(texts):
    with pytest.raises(DataError, match="no text to learn from"):
        train_bpe(texts, vocab_size=300)


@pytest.mark.parametrize("size", [267, 270, 293, 310, 350])
def test_the_vocabulary_has_the_size_that_was_asked_for(size):
    assert train_bpe([*TEXTS, string.printable * 2], vocab_size=size).vocab_size == size


def test_a_corpus_with_few_pairs_gives_a_smaller_vocabulary():
    assert train_bpe(["ab"], vocab_size=4096).vocab_size == 267 + 1 + 26


def test_training_twice_gives_the_same_tokenizer():
    mixed = [f"{word} {other}" for word in ("alpha", "beta", "gamma") for other in ("一二", "2+2=4", "x_y")]
    assert train_bpe(mixed, vocab_size=360).fingerprint() == train_bpe(mixed, vocab_size=360).fingerprint()


def test_digits_stand_alone_however_often_a_number_occurs():
    tokenizer = train_bpe(["1234 1234"] * 50, vocab_size=400)
    assert pieces(tokenizer, "12 34") == ["1", "2", " ", "3", "4"]


def test_operators_and_newlines_stand_alone_however_often_they_meet():
    tokenizer = train_bpe(["x=(-3)\n\ny==-(4)\n"] * 50, vocab_size=400)
    assert pieces(tokenizer, "=(-\n\n") == ["=", "(", "-", "\n", "\n"]


def test_every_small_letter_with_its_space_is_one_token_even_one_never_seen():
    tokenizer = train_bpe(TEXTS, vocab_size=380)
    spaced = " ".join("zq" + string.ascii_lowercase)
    assert pieces(tokenizer, spaced) == ["z", " q", *(" " + letter for letter in string.ascii_lowercase)]


def test_frequent_words_and_characters_become_tokens():
    tokenizer = train_bpe(TEXTS, vocab_size=380)
    assert pieces(tokenizer, "the the 你好世界") == ["the", " the", " ", "你好世界"]


def test_special_strings_in_the_corpus_are_not_learned_as_characters():
    tokenizer = train_bpe(["a<think>b</think><｜User｜><answer>" + "think" * 3] * 50, vocab_size=400)
    assert [tokenizer.id_of(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert pieces(tokenizer, "<think>think</think>") == ["<think>", "think", "</think>"]
    plain = [tokenizer.decode([token_id]) for token_id in tokenizer.encode_plain("</think>")]
    assert plain == ["<", "/", "think", ">"]
    learned = [
        tokenizer.decode([token_id]) for token_id in range(len(SPECIAL_TOKENS) + 256, tokenizer.vocab_size)
    ]
    assert not any("<" in token or "answer" in token for token in learned)
