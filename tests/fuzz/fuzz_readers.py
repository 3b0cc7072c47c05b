"""Every reader of untrusted files: how a sound small checkpoint for it is made, and what is done with one.

In:  an empty directory.  Out: the path of a checkpoint in it, its files, and a function that uses it up.
Not here: damage (fuzz_edits.py), what counts as a fault (fuzz_child.py).
"""

import base64
import dataclasses
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from tenth.checkpoint.companions import load_template, load_tokenizer
from tenth.checkpoint.gguf_export import export_gguf
from tenth.checkpoint.inspection import inspect_checkpoint
from tenth.checkpoint.model_dir import load_config, load_model, save_model
from tenth.checkpoint.names import to_hf_tensors
from tenth.checkpoint.opened import open_checkpoint
from tenth.checkpoint.peft import load_adapter, merge_adapter_source, save_adapter
from tenth.checkpoint.sharded_writer import HfWriter
from tenth.checkpoint.tensor_source import TensorInfo
from tenth.cli.chat import advised_sampling
from tenth.model.config import GqaConfig, MlaConfig, ModelConfig, MoeConfig
from tenth.model.counts import count
from tenth.model.lora import LoraConfig, attach_lora
from tenth.model.quantize import quantize_model
from tenth.model.transformer import Transformer, initialise
from tenth.tokenizer.jinja_template import JinjaTemplate
from tenth.tokenizer.pretrained import read_bounded
from tenth.tokenizer.special import Trust
from tenth.tokenizer.tiktoken import QWEN, parse_ranks, vocabulary_from_ranks
from tenth.tokenizer.tokenizer import Tokenizer
from tenth.tokenizer.train import train_bpe

TEXT = " Häß 'll <think> 12\n\n<|im_end|> ab\U0001f600"
LLAMA = ModelConfig(
    name="small",
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    gqa=GqaConfig(num_key_value_heads=1, head_dim=16),
    max_position_embeddings=64,
)
DEEPSEEK = dataclasses.replace(
    LLAMA,
    gqa=None,
    mla=MlaConfig(q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16),
    moe=MoeConfig(n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=32),
    num_nextn_predict_layers=1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """`build` fills a directory and says what is opened; each of `uses` may raise a TenthError."""

    build: Callable[[Path], Path]
    files: tuple[str, ...]  # that are damaged: patterns
    uses: tuple[Callable[[Path], None], ...]


@cache
def vocabulary() -> Tokenizer:
    """Bytes, the special tokens and a few merges."""
    return train_bpe([f"What is {a}+{a}? It is {a + a}." for a in range(9)], vocab_size=300)


@cache
def model_of(config: ModelConfig) -> Transformer:
    """Untrained."""
    return initialise(Transformer(config), generator=torch.Generator().manual_seed(0))


def write_model(directory: Path, config: ModelConfig = LLAMA, *, fp8: bool = False) -> Path:
    """A whole Hugging Face directory."""
    template = JinjaTemplate(text="{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}")
    save_model(
        directory / "model", model_of(config), tokenizer=vocabulary(), template=template, fp8=fp8
    )  # fmt: skip
    return directory / "model"


def write_sharded(directory: Path) -> Path:
    """The same in four shards."""
    path = write_model(directory)
    (path / "model.safetensors").unlink()
    writer = HfWriter(path, max_shard_bytes=20_000)
    for name, tensor in to_hf_tensors(model_of(LLAMA).state_dict(), LLAMA):
        writer.add(name, tensor)
    writer.finish()
    return path


def write_quantised(directory: Path) -> Path:
    """Codes of our own."""
    model = initialise(Transformer(LLAMA), generator=torch.Generator().manual_seed(0))
    quantize_model(model, 8)
    save_model(directory / "model", model)
    return directory / "model"


def write_gguf_as(file_type: str, config: ModelConfig = LLAMA) -> Callable[[Path], Path]:
    """A GGUF file with vocabulary and template."""

    def write(directory: Path) -> Path:
        path = write_model(directory / "from", config)
        export_gguf(path, directory / "m.gguf", file_type=file_type, on_progress=lambda _done, _total: None)
        for file in sorted(path.iterdir()):
            file.unlink()
        path.rmdir()
        path.parent.rmdir()
        return directory / "m.gguf"

    return write


def story_vocabulary(num_words: int) -> bytes:
    """A llama2.c vocabulary: specials, bytes, and words of two letters."""
    every = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % byte for byte in range(256))]
    every += [bytes([97 + n % 20, 97 + n // 20]) if n > 19 else bytes([97 + n]) for n in range(num_words)]
    return struct.pack("<i", 7) + b"".join(
        struct.pack("<fi", -float(place), len(word)) + word for place, word in enumerate(every)
    )


def write_story(directory: Path) -> Path:
    """A llama2.c file and its vocabulary: width 4, then 6, 2 layers, 2 heads, 1 key head, 3 positions."""
    tokens = 300
    words = tokens * 4 + 2 * (4 + 16 + 8 + 8 + 16 + 4 + 24 + 24 + 24) + 4 + 2 * 3 * 1
    header = struct.pack("<7i", 4, 6, 2, 2, 1, tokens, 3)
    (directory / "m.bin").write_bytes(header + struct.pack(f"<{words}f", *([0.5] * words)))
    (directory / "tokenizer.bin").write_bytes(story_vocabulary(tokens - 259))
    return directory / "m.bin"


def write_ranks(directory: Path) -> Path:
    """A tiktoken file."""
    words = [*(bytes([byte]) for byte in range(256)), b"he", b"ll", b"hell", b" o", b"hello", b"qz!"]
    lines = (base64.b64encode(word) + b" %d\n" % rank for rank, word in enumerate(words))
    (directory / "qwen.tiktoken").write_bytes(b"".join(lines))
    return directory / "qwen.tiktoken"


def field(number: int, value: int | float | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, bytes):
        size = bytes([len(value) & 127 | 128, len(value) >> 7]) if len(value) > 127 else bytes([len(value)])
        return bytes([number << 3 | 2]) + size + value
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    return bytes([number << 3, value])


def write_pieces_as(model_type: int) -> Callable[[Path], Path]:
    """A SentencePiece model: 1 unigrams, with a character map, 2 merges."""

    def write(directory: Path) -> Path:
        pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<think>", 0.0, 4)]
        pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
        pieces += [(text, -1.0 - n, 1) for n, text in enumerate(("▁a", "ab", "▁", "a", "b", "H", "ä"))]
        rows = [field(1, text.encode()) + field(2, score) + field(3, kind) for text, score, kind in pieces]
        data = b"".join(field(1, row) for row in rows)
        rules = field(1, b"identity")
        if model_type == 1:
            rules += field(
                2, struct.pack("<I", 1024) + bytes(1025)
            )  # 256 nodes, none of which leads anywhere
        data += field(2, field(3, model_type)) + field(3, rules)
        (directory / "tokenizer.model").write_bytes(data)
        return directory / "tokenizer.model"

    return write


def write_adapter(directory: Path) -> Path:
    """A PEFT directory."""
    model = Transformer(LLAMA)
    attach_lora(
        model,
        LoraConfig(rank=2, alpha=3.0, targets=("q_proj", "down_proj")),
        name="here",
        generator=torch.Generator(),
    )
    save_adapter(directory / "adapter", model, "here", base_model="a/base")
    return directory / "adapter"


# what is done with them; each of these may raise a TenthError


def read_tensors(path: Path) -> None:
    """Every number of a checkpoint."""
    source = open_checkpoint(path, is_checked=True).source
    for name, info in source.infos().items():
        assert source.read(name).shape == info.shape


def load_weights(path: Path) -> None:
    """The network, and one pass through it."""
    model = load_model(path, dtype=torch.float32)
    with torch.no_grad():
        model.logits(model(torch.tensor([[1, 2, 0]])))


def read_words(path: Path) -> None:
    """The tokenizer of a checkpoint, and its template, which is not run."""
    tokenizer = load_tokenizer(path)
    encode_and_decode(tokenizer)
    load_template(path)


def read_config(path: Path) -> None:
    """The configuration alone, as tools that want no weights do."""
    count(load_config(path))


def read_advice(path: Path) -> None:
    """How answers shall be sampled."""
    assert all(number >= 0 for number in advised_sampling(path))


def inspect_all(path: Path) -> None:
    """As `tenth inspect` shows it."""
    json.dumps([dataclasses.asdict(group) for group in inspect_checkpoint(path).groups])


def open_vocabulary(path: Path) -> None:
    """A vocabulary alone."""
    encode_and_decode(Tokenizer.load(path))


def open_ranks(path: Path) -> None:
    """Ranks, cut as Qwen cuts texts, however many there are."""
    ranks = parse_ranks(read_bounded(path), source=path)
    encode_and_decode(Tokenizer.from_vocabulary(vocabulary_from_ranks(ranks, QWEN), source=path))


def encode_and_decode(tokenizer: Tokenizer) -> None:
    """Text to ids and back, at every trust."""
    for trust in Trust:
        ids = tokenizer.encode(TEXT, trust=trust)
        assert all(0 <= each < tokenizer.vocab_size for each in ids)
        tokenizer.decode(ids)
    for each in (0, 255, tokenizer.vocab_size - 1):
        tokenizer.token_of(each)
        tokenizer.bytes_of(each)
    tokenizer.spec()


def attach(path: Path) -> None:
    """An adapter beside a network's weights."""
    load_adapter(initialise(Transformer(LLAMA), generator=torch.Generator()), path)


def merge(path: Path) -> None:
    """An adapter added to a checkpoint's tensors."""
    base = MemorySource(dict(to_hf_tensors(model_of(LLAMA).state_dict(), LLAMA)))
    source = merge_adapter_source(base, path)
    for name in source.infos():
        source.read(name)


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Tensors that are there."""

    tensors: dict[str, torch.Tensor]

    def infos(self) -> dict[str, TensorInfo]:
        """Every tensor."""
        return {
            name: TensorInfo(dtype=each.dtype, shape=tuple(each.shape)) for name, each in self.tensors.items()
        }

    def read(self, name: str) -> torch.Tensor:
        """One of them."""
        return self.tensors[name]


_DIRECTORY = (read_config, inspect_all, read_words, read_tensors, load_weights)
_FILE = (inspect_all, read_words, read_tensors, load_weights)
_JSON = ("model/*.json", "model/*.jinja")

READERS = {
    "safetensors": Reader(build=write_model, files=("model/*.safetensors",), uses=_DIRECTORY[2:]),
    "companions": Reader(build=write_model, files=_JSON, uses=(*_DIRECTORY, read_advice)),
    "latent": Reader(build=partial(write_model, config=DEEPSEEK), files=("model/*",), uses=_DIRECTORY),
    "shards": Reader(build=write_sharded, files=("model/model*",), uses=_DIRECTORY),
    "fp8": Reader(
        build=partial(write_model, config=DEEPSEEK, fp8=True),
        files=("model/*.safetensors", "model/config.json"),
        uses=_DIRECTORY,
    ),
    "codes": Reader(build=write_quantised, files=("model/*",), uses=(inspect_all, load_weights)),
    **{
        f"gguf-{kind}": Reader(build=write_gguf_as(kind), files=("m.gguf",), uses=_FILE)
        for kind in ("f32", "q8_0", "q4_0")
    },
    "gguf-latent": Reader(build=write_gguf_as("bf16", DEEPSEEK), files=("m.gguf",), uses=_FILE),
    "llama2c": Reader(build=write_story, files=("*.bin",), uses=_FILE),
    "tokenizer": Reader(build=write_model, files=("model/tok*",), uses=(open_vocabulary, read_words)),
    "tiktoken": Reader(build=write_ranks, files=("*",), uses=(open_ranks,)),
    "unigrams": Reader(build=write_pieces_as(1), files=("*",), uses=(open_vocabulary,)),
    "merges": Reader(build=write_pieces_as(2), files=("*",), uses=(open_vocabulary,)),
    "adapter": Reader(build=write_adapter, files=("adapter/*",), uses=(attach, merge)),
}
