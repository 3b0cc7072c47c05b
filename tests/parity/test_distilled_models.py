"""A student that was distilled is loaded by transformers, and computes the same."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from tune_models import make_model, without_answers, write_rows

from tenth.checkpoint.model_dir import load_model
from tenth.llm.llm import LLM
from tenth.pipeline.distill import run_distill
from tenth.pipeline.distill_sides import Teacher
from tenth.rollout.responder import LocalResponder

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("method", ["sft", "logits"])
def test_a_student_from_a_preset_is_a_qwen2_to_transformers(method, tmp_path):
    source = make_model(tmp_path / "teacher")

    @contextmanager
    def opened():
        with LLM(source, dtype=torch.float32) as llm:
            yield LocalResponder(llm)

    prompts = write_rows(tmp_path / "prompts.jsonl", without_answers())
    run_distill(
        {"teacher": "teacher", "model": "nano-student", "prompts": str(prompts), "method": method},
        ("steps=2", "max_completion_length=60", "temperature=1", "learning_rate=1e-2"),
        teacher=Teacher(name="teacher", identity="teacher", model_dir=source, open=opened),
        out=tmp_path / "out",
    )
    directory = tmp_path / "out" / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    assert type(theirs).__name__ == "Qwen2ForCausalLM"
    ours = load_model(directory, dtype=torch.float32)
    ids = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(ids)), theirs(ids).logits, atol=1e-4, rtol=1e-4)
