"""A reward model's directory with its head put in place is a sequence classifier of transformers."""

import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from reward_base import write_base

from tenth.base.records import Message, Role
from tenth.checkpoint.companions import load_tokenizer
from tenth.checkpoint.model_dir import load_model
from tenth.checkpoint.reward_dir import HEAD, RewardFacts, RewardKind, save_reward_model
from tenth.model.scalar_head import RewardModel
from tenth.pipeline.reward_scorer import load_scorer
from tenth.tokenizer.chat import Template

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


def test_a_sequence_classifier_with_the_same_head_gives_the_same_scores(tmp_path):
    base = write_base(tmp_path / "base")
    model = RewardModel(load_model(base, dtype=torch.float32))
    model.head.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    save_reward_model(
        tmp_path / "judge",
        model,
        RewardFacts(kind=RewardKind.HELPFUL),
        tokenizer=load_tokenizer(base),
        template=Template.DEEPSEEK,
    )
    peer = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "judge", num_labels=1, dtype=torch.float32
    )
    peer.score.weight.data.copy_(safetensors.torch.load_file(tmp_path / "judge" / HEAD)["score.weight"])
    scorer = load_scorer(tmp_path / "judge")
    asked = [
        ([Message(role=Role.USER, content="Who are you?")], said) for said in ("I am Tenth.", "Go away!")
    ]
    for ids, ours in zip(scorer.reader.ids(asked), scorer.raw(asked), strict=True):
        with torch.no_grad():  # one by one: a peer without padding reads the last token
            theirs = peer(torch.tensor([ids])).logits.item()
        assert ours == pytest.approx(theirs, abs=1e-4)
