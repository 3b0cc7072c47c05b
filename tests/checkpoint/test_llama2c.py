"""llama2.c files: a real one against its golden numbers, a tiny one by hand, damaged ones refused."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenth.base.errors import CheckpointError, TenthError
from tenth.checkpoint.companions import load_template, load_tokenizer, require_vocabulary
from tenth.checkpoint.llama2c import open_llama2c
from tenth.checkpoint.model_dir import load_model
from tenth.checkpoint.names import compare_names
from tenth.checkpoint.opened import open_checkpoint
from tenth.tokenizer.chat import Template

STORIES = Path(__file__).parents[2].parent / "shared" / "data" / "checkpoints" / "stories260K"
needs_stories = pytest.mark.skipif(not STORIES.exists(), reason="the optional ../shared/data is not here")

# hidden 4, feed-forward 6, 2 layers, 2 heads, 1 key head, 5 tokens, 3 positions
HEADER = (4, 6, 2, 2, 1, 5, 3)
# embedding, norms, wq, wk, wv, wo, norms, w1, w2, w3, norm, tables (3 positions x 1 pair)
NUM_WORDS = 5 * 4 + 2 * (4 + 16 + 8 + 8 + 16 + 4 + 24 + 24 + 24) + 4 + 2 * 3 * 1


def tiny(path: Path, header=HEADER, *, num_words: int = NUM_WORDS) -> Path:
    """Every number is its own place in the file."""
    file = path / "tiny.bin"
    file.write_bytes(struct.pack("<7i", *header) + struct.pack(f"<{num_words}f", *range(num_words)))
    return file


@needs_stories
def test_the_real_story_model_computes_its_golden_logits():
    known = json.loads((STORIES / "golden.json").read_text())
    model = load_model(STORIES / "stories260K.bin", dtype=torch.float32).double()
    with torch.no_grad():
        logits = model.logits(model(torch.tensor([known["prompt_ids"]])))[0]
    # The golden numbers are float64 throughout; our rotary tables are float32.
    sums, norms = torch.tensor(known["logits_sum_per_pos"]), torch.tensor(known["logits_l2_per_pos"])
    torch.testing.assert_close(logits.sum(-1).float(), sums, atol=2e-3, rtol=0)
    torch.testing.assert_close(logits.norm(dim=-1).float(), norms, atol=1e-4, rtol=0)
    best = logits[-1].topk(8)
    assert best.indices.tolist() == [token_id for token_id, _ in known["last_logits_top8"]]
    assert best.values.tolist() == pytest.approx([value for _, value in known["last_logits_top8"]], abs=1e-5)


@needs_stories
def test_the_real_story_model_has_its_tokenizer_beside_it_and_no_template():
    assert load_tokenizer(STORIES / "stories260K.bin").vocab_size == 512
    assert load_template(STORIES / "stories260K.bin") is Template.PLAIN


def test_tensors_lie_where_the_format_has_them(tmp_path):
    source = open_checkpoint(tiny(tmp_path)).source
    assert torch.equal(source.read("model.embed_tokens.weight"), torch.arange(20.0).view(5, 4))
    assert source.read("model.layers.1.input_layernorm.weight").tolist() == [24, 25, 26, 27]
    # wq begins at 20 + 8; the rows of a head of two are one pair, which is its own half-split order
    assert torch.equal(
        source.read("model.layers.0.self_attn.q_proj.weight"), torch.arange(28.0, 44).view(4, 4)
    )
    assert source.read("model.norm.weight").tolist() == [276, 277, 278, 279]


def test_adjacent_pairs_become_halves(tmp_path):
    wide = (4, 6, 1, 1, 1, 5, 3)  # one head of four rows: pairs (0, 1), (2, 3)
    words = 5 * 4 + (4 + 16 + 16 + 16 + 16 + 4 + 24 + 24 + 24) + 4 + 2 * 3 * 2
    source = open_checkpoint(tiny(tmp_path, wide, num_words=words)).source
    assert source.read("model.layers.0.self_attn.k_proj.weight")[:, 0].tolist() == [40, 48, 44, 52]
    assert source.read("model.layers.0.self_attn.v_proj.weight")[:, 0].tolist() == [56, 60, 64, 68]


def test_a_negative_vocabulary_has_a_head_of_its_own(tmp_path):
    opened = open_checkpoint(tiny(tmp_path, (4, 6, 2, 2, 1, -5, 3), num_words=NUM_WORDS + 20))
    assert not opened.config.tie_word_embeddings
    assert opened.source.read("lm_head.weight")[0].tolist() == [286, 287, 288, 289]


@pytest.mark.parametrize("vocab", [5, -5])
def test_a_file_holds_exactly_what_the_network_needs(tmp_path, vocab):
    words = NUM_WORDS + (20 if vocab < 0 else 0)
    opened = open_checkpoint(tiny(tmp_path, (4, 6, 2, 2, 1, vocab, 3), num_words=words))
    fit = compare_names(opened.source.infos(), opened.config, mtp=False)
    assert (fit.missing, fit.unexpected, fit.misshapen) == ((), (), ())
    assert opened.config.rms_norm_eps == 1e-5


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ((4, 6, 2, 2, 1, 5, 4), "bytes and its header describes"),
        ((4, 6, 2, 2, 1, -5, 3), "bytes and its header describes"),
        ((4, 6, 0, 2, 1, 5, 3), "describe no Llama"),
        ((4, 6, 2**30, 2, 1, 5, 3), "describe no Llama"),
        ((4, 6, 2, 3, 1, 5, 3), "describe no Llama"),
        ((2**31 - 1, 6, 2, 1, 1, 5, 3), "describe no Llama"),
        ((0x616B3432, 1, 4, 6, 2, 2, 1), "of version 1, and version 0 is read"),
    ],
)
def test_a_header_that_does_not_fit_the_file_is_refused(tmp_path, header, reason):
    with pytest.raises(CheckpointError, match=reason):
        open_llama2c(tiny(tmp_path, header))


def test_a_cut_off_file_is_refused(tmp_path):
    file = tiny(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        open_llama2c(file)
    file.write_bytes(b"\4\0")
    with pytest.raises(CheckpointError, match="2 bytes, too few"):
        open_llama2c(file)


@given(st.integers(0, 27), st.binary(min_size=1, max_size=4))
def test_any_header_gives_a_checkpoint_or_one_sentence(tmp_path_factory, place, data):
    file = tiny(tmp_path_factory.mktemp("fuzz"))
    whole = file.read_bytes()
    file.write_bytes((whole[:place] + data + whole[place + len(data) :])[: len(whole)])
    try:
        opened = open_checkpoint(file)
    except TenthError:
        return
    for name, info in opened.source.infos().items():
        assert opened.source.read(name).shape == info.shape


def test_a_file_without_its_vocabulary_beside_it_says_which_is_wanted(tmp_path):
    with pytest.raises(CheckpointError, match="holds 5 tokens; put the one that the model was trained with"):
        load_tokenizer(tiny(tmp_path))


@needs_stories
def test_a_tokenizer_larger_than_the_embedding_is_refused_and_a_smaller_one_is_not(tmp_path):
    tokenizer = load_tokenizer(STORIES / "stories260K.bin")
    with pytest.raises(CheckpointError, match="512 tokens and the embedding only 5 rows"):
        require_vocabulary(tokenizer, open_checkpoint(tiny(tmp_path)).config, source="x")
    words = NUM_WORDS + 4 * (600 - 5)
    padded = open_checkpoint(tiny(tmp_path, (4, 6, 2, 2, 1, 600, 3), num_words=words)).config
    require_vocabulary(tokenizer, padded, source="x")
