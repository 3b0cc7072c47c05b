"""Muon's batched step against torch.optim.Muon, against the singular values, and stack against single."""

import copy

import pytest
import torch

from tenth.training.muon import NEWTON_SCHULZ, Muon, orthogonalise, rms_matched_scale


def params_with_grads(shapes, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    params = []
    for shape in shapes:
        param = torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))
        param.grad = torch.randn(shape, generator=generator, dtype=dtype)
        params.append(param)
    return params


def test_newton_schulz_moves_only_the_singular_values_and_by_the_printed_polynomial():
    # X = U S V', so each step is U p(S) V' with p(s) = a s + b s^3 + c s^5: work it out on the values alone.
    stack = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, s, vh = torch.linalg.svd(stack, full_matrices=False)
    s = s / s.norm(dim=-1, keepdim=True)
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalise(stack), u @ torch.diag_embed(s) @ vh)


def test_a_zero_gradient_moves_nothing():
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


def test_the_update_of_a_4_by_9_matrix_is_scaled_by_six_tenths():
    assert rms_matched_scale(4, 9) == pytest.approx(0.2 * 3)
    assert rms_matched_scale(9, 4) == pytest.approx(0.6)


def test_ten_steps_equal_torchs_muon_on_wide_tall_and_square_matrices():
    ours = params_with_grads([(16, 48), (48, 16), (32, 32), (16, 48)])
    theirs = copy.deepcopy(ours)
    for mine, other in zip(ours, theirs, strict=True):
        other.grad = mine.grad.clone()
    our_muon = Muon(ours, lr=0.02, weight_decay=0.1)
    their_muon = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = [param.detach().clone() for param in ours]
    for step in range(10):
        our_muon.step()
        their_muon.step()
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            fresh = torch.randn(mine.shape, generator=torch.Generator().manual_seed(100 * step + index))
            mine.grad, other.grad = fresh, fresh.clone()
    for mine, other, before in zip(ours, theirs, start, strict=True):
        # Both iterate in bfloat16, in another order of sums: equal to a small part of the way travelled.
        travelled = (other - before).norm()
        assert (mine - other).norm() < 0.01 * travelled


def test_a_stack_of_experts_is_updated_as_each_expert_alone():
    stack = params_with_grads([(4, 12, 8)], dtype=torch.float64)[0]
    singles = [torch.nn.Parameter(expert.detach().clone()) for expert in stack]
    for single, grad in zip(singles, stack.grad, strict=True):
        single.grad = grad.clone()
    Muon([stack], lr=0.1, newton_schulz_dtype=torch.float64).step()
    for single in singles:
        Muon([single], lr=0.1, newton_schulz_dtype=torch.float64).step()
    torch.testing.assert_close(stack, torch.stack([single.detach() for single in singles]))


def test_a_tall_matrix_moves_as_its_transpose_does():
    tall = params_with_grads([(12, 5)], dtype=torch.float64)[0]
    wide = torch.nn.Parameter(tall.detach().T.clone())
    wide.grad = tall.grad.T.clone()
    for param in (tall, wide):
        Muon([param], lr=0.1, newton_schulz_dtype=torch.float64).step()
    torch.testing.assert_close(tall.detach().T, wide.detach())


def test_what_shares_a_batch_does_not_change_the_result():
    alone = params_with_grads([(6, 9)], dtype=torch.float64)[0]
    together = params_with_grads([(6, 9), (9, 6), (3, 6, 9)], dtype=torch.float64)
    Muon([alone], lr=0.1, newton_schulz_dtype=torch.float64).step()
    Muon(together, lr=0.1, newton_schulz_dtype=torch.float64).step()
    torch.testing.assert_close(alone, together[0])


def test_a_matrix_without_a_gradient_stays():
    moving, still = params_with_grads([(3, 4), (3, 4)])
    still.grad = None
    before = still.detach().clone()
    Muon([moving, still], lr=0.1).step()
    assert torch.equal(still, before)


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="matrices"):
        Muon(params_with_grads([(4,)]), lr=0.1)
