"""Rotary embedding: DeepSeek-V3's numbers, the published YaRN table, relativity, the two row orders."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenth.model.config import LinearRopeConfig, Llama3RopeConfig, YarnConfig
from tenth.model.rope import (
    active_scaling,
    apply_rope,
    half_to_interleaved,
    interleaved_to_half,
    rope_frequencies,
    rope_tables,
    softmax_scale,
    yarn_ramp,
)

V3_YARN = YarnConfig(factor=40.0, original_max_position_embeddings=4096)
GOLDEN = Path(__file__).parents[2].parent / "shared" / "data" / "golden" / "yarn_inv_freq.json"


def rotate_interleaved(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The rotation as DeepSeek-V3's inference code writes it: neighbours are one complex number."""
    angles = torch.complex(cos, sin).unsqueeze(-2)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * angles).flatten(-2)


def test_the_first_pair_turns_one_radian_per_token_and_the_last_almost_theta_times_slower():
    frequencies = rope_frequencies(4, theta=10000.0, scaling=None)
    torch.testing.assert_close(frequencies, torch.tensor([1.0, 0.01]))  # 10000^0, 10000^(-2/4)


def test_the_v3_ramp_runs_from_pair_10_to_pair_23():
    # 64 ln(4096 / (32 * 2 pi)) / (2 ln 10000) = 10.47; with 1 turn instead of 32: 22.51
    assert yarn_ramp(64, theta=10000.0, yarn=V3_YARN) == (10, 23)


def test_yarn_keeps_fast_pairs_and_slows_slow_ones_by_the_factor():
    plain = rope_frequencies(64, theta=10000.0, scaling=None)
    stretched = rope_frequencies(64, theta=10000.0, scaling=V3_YARN)
    torch.testing.assert_close(stretched[:11], plain[:11])
    torch.testing.assert_close(stretched[23:], plain[23:] / 40)
    # pair 15 lies 5/13 along the ramp: 8/13 of the plain frequency plus 5/13 of a fortieth of it
    assert stretched[15].item() == pytest.approx(plain[15].item() * (8 / 13 + 5 / 13 / 40), rel=1e-6)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the optional ../shared/data is not here")
def test_yarn_equals_the_published_table():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    yarn = YarnConfig(
        factor=golden["factor"], original_max_position_embeddings=golden["original_max_position_embeddings"]
    )
    ours = rope_frequencies(golden["dim"], theta=golden["theta"], scaling=yarn)
    torch.testing.assert_close(ours, torch.tensor(golden["inv_freq"]), rtol=1e-4, atol=0)


def test_linear_scaling_divides_every_position():
    frequencies = rope_frequencies(4, theta=10000.0, scaling=LinearRopeConfig(factor=4.0))
    torch.testing.assert_close(frequencies, torch.tensor([0.25, 0.0025]))


def test_llama_3_slows_by_the_turns_within_the_original_context():
    scaling = Llama3RopeConfig(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
    )
    plain = rope_frequencies(128, theta=500000.0, scaling=None)
    found = rope_frequencies(128, theta=500000.0, scaling=scaling)
    # Pair j turns 8192 / (2 pi) * 500000^(-j/64) times: pair 28 4.19 times, 29 3.41, 34 1.22, 35 0.997.
    torch.testing.assert_close(found[:29], plain[:29])
    torch.testing.assert_close(found[35:], plain[35:] / 8)
    turns = 8192 / (2 * math.pi) * 500000 ** (-31 / 64)  # 2.26: 0.42 of the way from 1 to 4
    kept = (turns - 1) / 3
    assert found[31].item() == pytest.approx(plain[31].item() * (kept + (1 - kept) / 8), rel=1e-5)


def test_an_attention_factor_sizes_the_rotation_by_itself():
    yarn = YarnConfig(factor=4.0, original_max_position_embeddings=32, attention_factor=1.5)
    cos, _ = rope_tables(8, 1, theta=10000.0, scaling=yarn)
    assert cos[0, 0].item() == 1.5


def test_the_ramp_can_end_between_pairs():
    yarn = YarnConfig(factor=40.0, original_max_position_embeddings=4096, truncate=False)
    assert yarn_ramp(64, theta=10000.0, yarn=yarn) == pytest.approx((10.47, 22.51), abs=0.005)


def test_tables_hold_cosine_and_sine_of_position_times_frequency():
    cos, sin = rope_tables(4, 3, theta=10000.0, scaling=None, device="cpu")
    assert cos.shape == sin.shape == (3, 2)
    assert cos.dtype == torch.float32
    assert cos[2].tolist() == pytest.approx([math.cos(2.0), math.cos(0.02)], rel=1e-6)
    assert sin[2].tolist() == pytest.approx([math.sin(2.0), math.sin(0.02)], rel=1e-6)


def test_tables_of_long_contexts_have_no_seam():
    cos, sin = rope_tables(4, 70_000, theta=10000.0, scaling=None)
    for position in (65_535, 65_536, 69_999):
        assert cos[position, 1].item() == pytest.approx(math.cos(position * 0.01), abs=1e-4)
        assert sin[position, 0].item() == pytest.approx(math.sin(position), abs=1e-6)


def test_equal_mscales_cancel_in_the_tables_and_a_missing_one_stays():
    cos, _ = rope_tables(64, 1, theta=10000.0, scaling=V3_YARN, device="cpu")
    assert cos[0, 0].item() == 1.0
    alone = YarnConfig(factor=4.0, original_max_position_embeddings=32768, mscale_all_dim=0.0)
    cos, _ = rope_tables(64, 1, theta=10000.0, scaling=alone, device="cpu")
    assert cos[0, 0].item() == pytest.approx(0.1 * math.log(4) + 1)


def test_a_quarter_turn_sends_the_first_half_into_the_second():
    x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    cos, sin = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    # (1, 3) and (2, 4) are the pairs; a quarter turn maps (a, b) to (-b, a)
    assert apply_rope(x, cos, sin).flatten().tolist() == [-3.0, -4.0, 1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rotation_keeps_shape_and_dtype(dtype):
    x = torch.randn(2, 3, 4, 8).to(dtype)
    cos, sin = rope_tables(8, 3, theta=10000.0, scaling=None, device="cpu")
    turned = apply_rope(x, cos[None], sin[None])
    assert turned.shape == x.shape
    assert turned.dtype == dtype


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 500), distance=st.integers(0, 500), shift=st.integers(0, 3000))
def test_a_score_depends_on_the_distance_alone(start, distance, shift):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64, generator=generator)
    cos, sin = rope_tables(16, 4001, theta=10000.0, scaling=V3_YARN, device="cpu")

    def score(query_at: int, key_at: int) -> torch.Tensor:
        turned = [
            apply_rope(x, cos[None, at : at + 1], sin[None, at : at + 1])
            for x, at in ((query, query_at), (key, key_at))
        ]
        return (turned[0] * turned[1]).sum()

    here, there = score(start + distance, start), score(start + distance + shift, start + shift)
    torch.testing.assert_close(here, there, atol=1e-5, rtol=0)


def test_permuted_rows_give_the_scores_of_the_interleaved_reference():
    torch.manual_seed(0)
    heads, nope, rope, hidden, tokens = 3, 6, 8, 10, 5
    hidden_states = torch.randn(2, tokens, hidden, dtype=torch.float64)
    w_query = torch.randn(heads * (nope + rope), hidden, dtype=torch.float64)
    w_key = torch.randn(nope + rope, hidden, dtype=torch.float64)  # one shared key head, as in MLA
    tables = rope_tables(rope, tokens, theta=100.0, scaling=None, device="cpu")
    cos, sin = (table[None].double() for table in tables)

    def scores(w_q, w_k, rotate):
        q = (hidden_states @ w_q.T).unflatten(-1, (heads, nope + rope))
        k = (hidden_states @ w_k.T).unflatten(-1, (1, nope + rope))
        q = torch.cat((q[..., :nope], rotate(q[..., nope:].contiguous(), cos, sin)), dim=-1)
        k = torch.cat((k[..., :nope], rotate(k[..., nope:].contiguous(), cos, sin)), dim=-1)
        return torch.einsum("bthd,bsxd->bhts", q, k)

    permuted = [interleaved_to_half(w, rope, head_dim=nope + rope) for w in (w_query, w_key)]
    torch.testing.assert_close(scores(*permuted, apply_rope), scores(w_query, w_key, rotate_interleaved))


def test_the_two_row_orders_are_inverse():
    assert interleaved_to_half(torch.arange(6), 6).tolist() == [0, 2, 4, 1, 3, 5]
    rows = torch.arange(20).view(20, 1)
    there_and_back = half_to_interleaved(interleaved_to_half(rows, 6, head_dim=10), 6, head_dim=10)
    assert torch.equal(there_and_back, rows)


def test_softmax_scale_of_v3_is_0_135234_past_the_original_context_and_plain_within_it():
    assert softmax_scale(192, V3_YARN, 163840) == pytest.approx(0.135234, abs=5e-7)
    assert softmax_scale(192, V3_YARN, 4096) == pytest.approx(0.0721688, abs=5e-8)
    assert softmax_scale(192, None, 163840) == pytest.approx(0.0721688, abs=5e-8)


def test_yarn_is_active_by_the_configured_maximum():
    assert active_scaling(V3_YARN, max_position_embeddings=4096) is None
    assert active_scaling(V3_YARN, max_position_embeddings=4097) is V3_YARN
    assert active_scaling(None, max_position_embeddings=163840) is None
