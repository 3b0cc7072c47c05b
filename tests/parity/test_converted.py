"""What `tenth convert` writes, transformers reads: a real model tells its golden story there."""

import json
from pathlib import Path

import pytest
import torch

from tenth.checkpoint.convert import convert

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

STORIES = Path(__file__).parents[2].parent / "shared" / "data" / "checkpoints" / "stories260K"


@pytest.mark.skipif(not STORIES.exists(), reason="the optional ../shared/data is not here")
def test_the_story_model_of_llama2c_tells_its_golden_story_in_transformers(tmp_path):
    known = json.loads((STORIES / "golden.json").read_text())
    convert(STORIES / "stories260K.bin", tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b.gguf", dtype="f32")
    convert(tmp_path / "b.gguf", tmp_path / "c", max_shard_bytes=300_000)
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "c", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "c")
    ids = [tokenizer.bos_token_id, *tokenizer(known["prompt"], add_special_tokens=False)["input_ids"]]
    assert ids == known["prompt_ids"]
    story = known["greedy_ids_from_bos"]
    out = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=len(story) - len(ids))
    assert out[0].tolist() == story
    assert tokenizer.decode(story, skip_special_tokens=True) == known["greedy_text_from_bos"]
