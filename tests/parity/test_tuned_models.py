"""What `tenth rl` and `tenth sft` leave behind is loaded by transformers and PEFT, and computes the same."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from tune_models import REWARDS, make_model, sums, without_answers, write_rows

from tenth.base.records import Message, Role
from tenth.checkpoint.companions import load_tokenizer
from tenth.checkpoint.model_dir import load_model
from tenth.checkpoint.peft import load_adapter
from tenth.pipeline.tune_rl import run_rl
from tenth.pipeline.tune_sft import run_sft
from tenth.tokenizer.chat import Template, render_prompt
from tenth.tokenizer.jinja_template import JinjaTemplate

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
CHATML = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tune(tmp_path, base, *, kind, lora_rank):
    out, values = tmp_path / "out", {"model": str(base), "lora_rank": lora_rank, "learning_rate": 1e-2}
    if kind == "sft":
        rows = [{"prompt": row["prompt"], "completion": row["answer"]} for row in sums()]
        data = write_rows(tmp_path / "data.jsonl", rows)
        run_sft(values | {"data": str(data), "steps": 4}, out=out)
    else:
        (tmp_path / "mine.py").write_text(REWARDS)
        tasks = write_rows(tmp_path / "prompts.jsonl", without_answers())
        sizes = {"prompts_per_step": 3, "num_generations": 4, "max_completion_length": 6, "steps": 2}
        rewards = {f"{tmp_path / 'mine.py'}:odd_start": 1.0}
        run_rl(values | sizes | {"tasks": str(tasks), "rewards": rewards}, out=out)
    return out / "model"


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch):
    monkeypatch.setattr("tenth.pipeline.machine.measure_peak", lambda _: 1e11)


def ids():
    return torch.randint(0, 200, (2, 20), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def require_equal(ours, theirs):
    expected = theirs(ids()).logits
    torch.testing.assert_close(ours.logits(ours(ids())), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", ["rl", "sft"])
def test_a_tuned_model_is_loaded_whole_and_computes_the_same(tmp_path, kind):
    base = make_model(tmp_path / "base", template=JinjaTemplate(text=CHATML))
    model = tune(tmp_path, base, kind=kind, lora_rank=None)
    theirs, found = transformers.AutoModelForCausalLM.from_pretrained(
        model, output_loading_info=True, dtype=torch.float32
    )
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    require_equal(load_model(model, dtype=torch.float32), theirs.eval())
    tokenizer, peer = load_tokenizer(model), transformers.AutoTokenizer.from_pretrained(model)
    question = [{"role": "user", "content": "What is 3+4?"}]
    asked = peer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert asked == "<|user|>What is 3+4?\n<|assistant|>"
    rendered = render_prompt(
        tokenizer, [Message(role=Role.USER, content="What is 3+4?")], template=JinjaTemplate(text=CHATML)
    )
    assert tokenizer.decode(rendered) == asked


@pytest.mark.parametrize("kind", ["rl", "sft"])
def test_a_tuned_adapter_is_loaded_by_peft_over_its_base_and_computes_the_same(tmp_path, kind):
    base = make_model(tmp_path / "base", template=Template.PLAIN)
    adapter = tune(tmp_path, base, kind=kind, lora_rank=4)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = theirs(ids()).logits
    wrapped = peft.PeftModel.from_pretrained(theirs, adapter).eval()
    assert not torch.allclose(wrapped(ids()).logits, before, atol=10 * TOLERANCE)  # it has learnt something
    require_equal(load_adapter(load_model(base, dtype=torch.float32), adapter), wrapped)
