import torch
from small_models import DEEPSEEK, QWEN, build, random_ids

from tenth.model.scalar_head import RewardModel


def reward_model(config=QWEN) -> RewardModel:
    model = RewardModel(build(config, dtype=torch.float32))
    generator = torch.Generator().manual_seed(7)
    model.head.weight.data.normal_(generator=generator)
    return model


def test_a_new_head_gives_everything_the_score_zero():
    model = RewardModel(build(QWEN, dtype=torch.float32))
    assert model(random_ids(2, 5), last_index=torch.tensor([4, 9])).tolist() == [0.0, 0.0]


def test_the_score_is_the_head_times_the_last_tokens_hidden_state():
    model, ids = reward_model(), random_ids(2, 6)
    hidden = model.body(ids)
    expected = torch.stack([hidden[0, 3] @ model.head.weight[0], hidden[1, 5] @ model.head.weight[0]])
    torch.testing.assert_close(model(ids, last_index=torch.tensor([3, 11])), expected)


def test_what_stands_behind_the_last_token_changes_nothing():
    model, ids = reward_model(DEEPSEEK), random_ids(1, 8)
    other = ids.clone()
    other[0, 5:] = 0
    at = torch.tensor([4])
    torch.testing.assert_close(model(ids, last_index=at), model(other, last_index=at))


def test_the_score_is_float32_whatever_the_network_computes_in():
    model = RewardModel(build(QWEN, dtype=torch.float32).to_compute_dtype(torch.bfloat16))
    assert model(random_ids(1, 4), last_index=torch.tensor([3])).dtype is torch.float32
