"""The real story model of llama2.c, sampled from text to text."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenth.checkpoint.companions import load_tokenizer
from tenth.engine.request import SamplingParams
from tenth.llm.detokenizer import build_detokenizer
from tenth.llm.llm import LLM

STORIES = Path(__file__).parents[2].parent / "shared" / "data" / "checkpoints" / "stories260K"


pytestmark = pytest.mark.skipif(not STORIES.exists(), reason="the optional ../shared/data is not here")


@given(st.lists(st.integers(0, 515)))
def test_joined_pieces_of_its_vocabulary_are_the_decoded_text_for_any_ids(ids):
    tokenizer = load_tokenizer(STORIES / "stories260K.bin")
    detokenizer = build_detokenizer(tokenizer)
    assert "".join([*map(detokenizer.feed, ids), detokenizer.flush()]) == tokenizer.decode(ids)


def test_its_golden_story_is_told_from_the_file_alone():
    known = json.loads((STORIES / "golden.json").read_text())
    story, prompt = known["greedy_ids_from_bos"], known["prompt_ids"]
    with LLM(STORIES / "stories260K.bin", dtype=torch.float32) as llm:
        assert llm.requests.prompt_ids(known["prompt"]) == tuple(prompt)
        params = SamplingParams(max_new_tokens=len(story) - len(prompt), temperature=0.0)
        (output,) = llm.generate(known["prompt"], params)
    answer = output.samples[0]
    assert [*prompt, *answer.ids] == story
    assert known["prompt"] + answer.text == known["greedy_text_from_bos"]
