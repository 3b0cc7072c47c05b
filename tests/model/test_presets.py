"""Presets: the published sizes they claim, and a helpful answer to a misspelt name."""

import pytest

from tenth.base.errors import ConfigError
from tenth.model.counts import count
from tenth.model.presets import PRESETS, preset


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("v3-671b", 671.03),
        ("v3-236b", 235.7),  # DeepSeek-V2 paper: 236B
        ("v3-16b", 15.7),  # DeepSeek-V2 paper, appendix B: 15.7B
        ("qwen2.5-0.5b", 0.494),
        ("qwen2.5-1.5b", 1.544),
        ("qwen2.5-7b", 7.616),
        ("qwen2.5-14b", 14.770),
        ("qwen2.5-32b", 32.764),
        ("qwen3-0.6b", 0.596),
        ("qwen3-8b", 8.191),
        ("qwen3-30b-a3b", 30.53),
        ("llama-3.2-1b", 1.236),
        ("llama-3.1-8b", 8.030),
        ("llama-3.3-70b", 70.554),
        ("dsv3-mini", 0.0634),
        ("dense-5m", 0.00486),
        ("dense-50m", 0.0495),
    ],
)
def test_a_preset_has_the_size_it_is_known_for(name, billions):
    assert count(PRESETS[name]).total_parameters / 1e9 == pytest.approx(billions, rel=1.5e-3)


def test_v2_and_v2_lite_activate_what_their_papers_say():
    # DeepSeek-V2: 21B; V2-Lite: 2.4B without the embedding table
    assert count(PRESETS["v3-236b"]).activated_parameters / 1e9 == pytest.approx(21.4, abs=0.2)
    assert count(PRESETS["v3-16b"]).activated_without_embedding / 1e9 == pytest.approx(2.4, abs=0.1)


def test_the_mini_multiplies_26_2_million_per_token():
    assert count(PRESETS["dsv3-mini"]).activated_without_embedding / 1e6 == pytest.approx(26.2, abs=0.1)


def test_every_preset_carries_its_own_name():
    assert all(name == config.name for name, config in PRESETS.items())


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(ConfigError, match=r"no preset 'v3-671'; did you mean 'v3-671b'\?"):
        preset("v3-671")


def test_a_strange_name_gets_the_list():
    with pytest.raises(ConfigError, match=r"known: v3-671b, .*tiny-zero"):
        preset("@@@@")


@pytest.mark.parametrize(
    ("student", "teacher"), [("tiny-student", "tiny-zero"), ("nano-student", "nano-zero")]
)
def test_a_student_activates_at_most_half_of_its_teacher_whichever_way_one_counts(student, teacher):
    small, large = count(PRESETS[student]), count(PRESETS[teacher])
    assert small.activated_parameters <= large.activated_parameters / 2
    assert small.activated_without_embedding <= large.activated_without_embedding / 2
    assert PRESETS[student].moe is None
    assert PRESETS[student].max_position_embeddings == PRESETS[teacher].max_position_embeddings
