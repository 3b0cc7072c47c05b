import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import ConfigError
from tenth.data.fill_in_middle import cut_document, join_pieces
from tenth.tokenizer.special import FIM_BEGIN, FIM_END, FIM_HOLE
from tenth.tokenizer.train import train_bpe

TOKENIZER = train_bpe(["def f(x): return x"], vocab_size=300)


@given(st.text(), st.integers(0, 5))
def test_prefix_middle_and_suffix_are_the_document(text, seed):
    assert "".join(cut_document(text, rate=1, seed=seed)) == text
    assert cut_document(text, rate=0, seed=seed) == (text,)


def test_one_document_in_ten_is_cut_at_rate_one_tenth():
    cut = sum(len(cut_document(f"document {n}", rate=0.1, seed=0)) == 3 for n in range(2000))
    assert 150 < cut < 250  # 200 expected, standard deviation 13


def test_the_same_document_is_cut_the_same_way():
    assert cut_document("some text", rate=1, seed=3) == cut_document("some text", rate=1, seed=3)
    assert len({cut_document("some text", rate=1, seed=seed) for seed in range(9)}) > 1


def test_the_order_is_prefix_suffix_middle():
    # DeepSeek-V3, section 4.1
    ids = join_pieces(TOKENIZER, [TOKENIZER.encode(piece) for piece in ("def ", "f(x)", ": return x")])
    assert TOKENIZER.decode(ids) == f"{FIM_BEGIN}def {FIM_HOLE}: return x{FIM_END}f(x)"


def test_a_rate_above_one_is_refused():
    with pytest.raises(ConfigError, match="rate is 2"):
        cut_document("x", rate=2, seed=0)
