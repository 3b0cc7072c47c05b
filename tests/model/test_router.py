"""The router: group-limited choice by hand, a bias that chooses but never weighs, balance by hand."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import draw

from tenth.base.errors import ConfigError
from tenth.model.config import MoeConfig
from tenth.model.router import Router, choose_experts, max_violation, sequence_balance_loss, top_k_ids

PLAIN = MoeConfig(n_routed_experts=4, n_shared_experts=0, num_experts_per_tok=2, moe_intermediate_size=8)
GROUPED = MoeConfig(
    n_routed_experts=8,
    n_shared_experts=0,
    num_experts_per_tok=3,
    moe_intermediate_size=8,
    n_group=4,
    topk_group=2,
)


def logits(*probabilities):
    return torch.logit(torch.tensor(probabilities))


def build_router(config, scores):
    """A router that scores the one-dimensional hidden state 1 as given."""
    router = Router(1, config)
    router.weight.data = logits(*scores)[:, None]
    return router


ONE = torch.ones(1, 1)


def test_the_best_scores_are_chosen_and_their_weights_sum_to_the_scaling_factor():
    config = dataclasses.replace(PLAIN, routed_scaling_factor=2.5)
    routing = build_router(config, [0.2, 0.8, 0.1, 0.4])(ONE)
    assert routing.expert_ids.tolist() == [[1, 3]]
    torch.testing.assert_close(routing.weights, torch.tensor([[2.5 * 0.8 / 1.2, 2.5 * 0.4 / 1.2]]))
    torch.testing.assert_close(routing.scores, torch.tensor([[0.2, 0.8, 0.1, 0.4]]))


def test_without_renormalisation_a_weight_is_the_score_itself():
    config = dataclasses.replace(PLAIN, norm_topk_prob=False, routed_scaling_factor=2.0)
    routing = build_router(config, [0.2, 0.8, 0.1, 0.4])(ONE)
    torch.testing.assert_close(routing.weights, torch.tensor([[1.6, 0.8]]))


def test_the_groups_with_the_best_pairs_stay_open():
    # Sums of each group's best two: 0.95, 1.1, 0.7, 0.8. Groups 1 and 0 stay, though expert 6 (0.7) beats
    # expert 3 (0.5).
    scores = torch.tensor([[0.9, 0.05, 0.6, 0.5, 0.4, 0.3, 0.7, 0.1]])
    assert choose_experts(scores, torch.zeros(8), config=GROUPED).tolist() == [[0, 2, 3]]


def test_a_groups_mark_is_its_best_two_not_its_best_or_all():
    # three experts per group; best: 0.9 / 0.6 / 0.5, best two: 1.0 / 1.1 / 1.0, all: 1.1 / 1.15 / 1.5
    config = MoeConfig(
        n_routed_experts=9,
        n_shared_experts=0,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        n_group=3,
        topk_group=1,
    )
    scores = torch.tensor([[0.9, 0.1, 0.1, 0.6, 0.5, 0.05, 0.5, 0.5, 0.5]])
    assert choose_experts(scores, torch.zeros(9), config=config).tolist() == [[3]]


def test_the_bias_moves_the_choice_of_groups_too():
    scores = torch.tensor([[0.9, 0.05, 0.6, 0.5, 0.4, 0.3, 0.7, 0.1]])
    bias = torch.zeros(8)
    bias[6] = 0.2  # group 3: 0.8 + 0.2 = 1.0 > 0.95 of group 0
    assert choose_experts(scores, bias, config=GROUPED).tolist() == [[6, 2, 3]]  # 0.9, 0.6, 0.5


SOFTMAX = dataclasses.replace(PLAIN, scoring_func="softmax", topk_method="greedy")


def test_softmax_scores_weigh_as_they_stand_and_renormalised_as_a_share():
    router = Router(1, dataclasses.replace(SOFTMAX, norm_topk_prob=False, routed_scaling_factor=2.0))
    router.weight.data = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()[:, None]
    routing = router(ONE)
    torch.testing.assert_close(routing.scores, torch.tensor([[0.1, 0.4, 0.2, 0.3]]))
    assert routing.expert_ids.tolist() == [[1, 3]]
    torch.testing.assert_close(routing.weights, torch.tensor([[0.8, 0.6]]))
    router.config = SOFTMAX
    torch.testing.assert_close(router(ONE).weights, torch.tensor([[4 / 7, 3 / 7]]))


def test_greedy_rules_do_not_look_at_the_bias():
    scores, bias = torch.tensor([[0.1, 0.4, 0.2, 0.3]]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert choose_experts(scores, bias, config=SOFTMAX).tolist() == [[1, 3]]


def test_v2_marks_a_group_by_its_best_expert_alone():
    # best: 0.9 / 0.6 / 0.5 / 0.7, so groups 0 and 3 stay; by best two groups 1 and 0 would
    config = dataclasses.replace(GROUPED, scoring_func="softmax", topk_method="group_limited_greedy")
    scores = torch.tensor([[0.9, 0.05, 0.6, 0.5, 0.4, 0.3, 0.7, 0.1]])
    assert choose_experts(scores, torch.ones(8), config=config).tolist() == [[0, 6, 7]]


def test_the_greedy_rule_refuses_groups():
    with pytest.raises(ConfigError, match="'greedy' knows no groups, but n_group = 4"):
        dataclasses.replace(GROUPED, topk_method="greedy")


def test_a_bias_that_changes_no_choice_changes_no_weight():
    router = build_router(PLAIN, [0.2, 0.8, 0.1, 0.4])
    before = router(ONE)
    router.bias.copy_(torch.tensor([0.0, 0.05, -0.3, 0.1]))
    after = router(ONE)
    assert torch.equal(before.expert_ids, after.expert_ids)
    assert torch.equal(before.weights, after.weights)


def test_a_bias_that_changes_the_choice_leaves_the_weights_to_the_scores():
    router = build_router(PLAIN, [0.2, 0.8, 0.1, 0.4])
    router.bias.copy_(torch.tensor([0.5, 0.0, 0.0, 0.0]))
    routing = router(ONE)
    assert set(routing.expert_ids[0].tolist()) == {0, 1}
    chosen = dict(zip(routing.expert_ids[0].tolist(), routing.weights[0].tolist(), strict=True))
    assert chosen[0] == pytest.approx(0.2)  # 0.2 / (0.2 + 0.8)
    assert chosen[1] == pytest.approx(0.8)


def test_the_bias_has_no_gradient_and_the_gate_has():
    router = Router(6, GROUPED)
    router.weight.data = draw(8, 6)
    routing = router(draw(5, 6, seed=1))
    routing.weights.square().sum().backward()
    assert "bias" not in dict(router.named_parameters())
    assert "bias" in router.state_dict()  # but it is saved
    assert router.weight.grad.abs().sum() > 0


def test_the_gate_decides_in_float32_under_bfloat16():
    router = build_router(PLAIN, [0.2, 0.8, 0.1, 0.4])
    routing = router(ONE.bfloat16())
    assert routing.scores.dtype == routing.weights.dtype == torch.float32


def test_the_bias_rises_for_the_idle_and_falls_for_the_busy():
    router = Router(6, PLAIN)
    router.update_bias(torch.tensor([10, 2, 4, 0]), speed=0.001)  # mean 4
    torch.testing.assert_close(router.bias, torch.tensor([-0.001, 0.001, 0.0, 0.001]))
    router.update_bias(torch.tensor([10, 2, 4, 0]), speed=0.5)
    torch.testing.assert_close(router.bias, torch.tensor([-0.501, 0.501, 0.0, 0.501]))


def test_updates_even_out_a_lopsided_gate():
    router = Router(6, PLAIN)
    router.weight.data = draw(4, 6)
    router.weight.data[0] *= 3
    x = draw(400, 6, seed=1).abs()

    def counts():
        return torch.bincount(router(x).expert_ids.flatten(), minlength=4)

    before = float(max_violation(counts()))
    for _ in range(300):
        router.update_bias(counts(), speed=0.005)
    assert before > 0.5
    assert float(max_violation(counts())) < 0.1


def test_max_violation_by_hand():
    # mean 4, largest 10: (10 - 4) / 4
    assert float(max_violation(torch.tensor([10, 2, 4, 0]))) == pytest.approx(1.5)
    found = max_violation(torch.tensor([[3, 3, 3], [9, 0, 0], [0, 0, 0]]))
    assert found.tolist() == pytest.approx([0.0, 2.0, 0.0])


def test_the_balance_loss_is_one_where_everything_is_even():
    # four tokens, two experts each, every expert chosen twice; shares equal in the mean
    high, low = 0.8, 0.2
    scores = torch.tensor([[[high, high, low, low], [low, low, high, high]] * 2])
    assert float(sequence_balance_loss(scores, None, config=PLAIN)) == pytest.approx(1.0)


def test_the_balance_loss_by_hand():
    # One sequence of two tokens, 4 experts, 2 chosen. Token 0 chooses 0 and 1, token 1 chooses 0 and 2.
    scores = torch.tensor([[[0.4, 0.3, 0.2, 0.1], [0.5, 0.1, 0.3, 0.1]]])  # both rows sum to 1
    # f_i = 4 / (2 * 2) * times chosen = 2, 1, 1, 0;  P_i = mean share = 0.45, 0.2, 0.25, 0.1
    assert float(sequence_balance_loss(scores, None, config=PLAIN)) == pytest.approx(0.9 + 0.2 + 0.25)


def test_shares_are_scores_over_their_sum():
    scores = torch.tensor(
        [[[0.8, 0.6, 0.4, 0.2], [0.5, 0.1, 0.3, 0.1]]]
    )  # the first row, halved, is the old one
    assert float(sequence_balance_loss(scores, None, config=PLAIN)) == pytest.approx(0.9 + 0.2 + 0.25)


def test_the_balance_loss_is_per_sequence():
    # each sequence sends all its tokens to the same two experts, the batch as a whole is even
    one, other = [0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]
    scores = torch.tensor([[one] * 3, [other] * 3])
    # f = 2 for the two chosen, P = 0.4 each: 2 * 0.4 * 2 = 1.6 in both
    assert float(sequence_balance_loss(scores, None, config=PLAIN)) == pytest.approx(1.6)


def test_padding_tokens_do_not_count_for_balance():
    scores = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    short = sequence_balance_loss(scores[:, :3], None, config=PLAIN)
    torch.testing.assert_close(sequence_balance_loss(scores, mask, config=PLAIN), short)


def test_the_balance_loss_pulls_scores_of_busy_experts_down():
    scores = torch.tensor([[[0.4, 0.3, 0.2, 0.1], [0.5, 0.1, 0.3, 0.1]]], requires_grad=True)
    sequence_balance_loss(scores, None, config=PLAIN).backward()
    assert (scores.grad[..., 0] > 0).all()
    assert (scores.grad[..., 3] < 0).all()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), cols=st.integers(1, 40), seed=st.integers(0, 999), data=st.data())
def test_top_k_ids_are_different_and_their_values_the_largest_in_order(rows, cols, seed, data):
    k = data.draw(st.integers(1, cols))
    x = torch.randint(5, (rows, cols), generator=torch.Generator().manual_seed(seed)).float()  # many ties
    ids = top_k_ids(x, k)
    assert torch.equal(x.gather(1, ids), x.sort(dim=-1, descending=True).values[:, :k])
    assert all(len(set(row)) == k for row in ids.tolist())


def test_top_k_ids_of_a_strided_matrix():
    x = draw(33, 20)
    assert torch.equal(top_k_ids(x[:, ::2], 3), x[:, ::2].topk(3).indices)
    assert torch.equal(top_k_ids(x.t(), 3), x.t().topk(3).indices)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_routed_experts": 6}, "multiple of n_group"),
        ({"num_experts_per_tok": 5}, "hold only 4"),
        ({"n_group": 8, "topk_group": 4}, "best two"),
    ],
)
def test_impossible_routings_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(GROUPED, **change)
