"""Count a network from its configuration alone: parameters, cache and arithmetic of DeepSeek-V3.

No weight is allocated and torch is not imported, so this takes a blink. `tenth inspect v3-671b` prints more.
"""

from tenth.base.units import show_bytes, show_count
from tenth.model.counts import count, flops_per_token
from tenth.model.presets import preset


def main() -> None:
    """Print what one token of each network touches, stores and costs."""
    for name in ("v3-671b", "llama-3.1-8b", "tiny-zero"):
        config = preset(name)
        counts = count(config)
        flops = flops_per_token(config, context_tokens=min(4096, config.max_position_embeddings))
        print(f"{name}: {show_count(counts.total_parameters)} parameters")
        print(f"  one token is multiplied with {show_count(counts.activated_without_embedding)} of them")
        print(f"  and adds {show_bytes(counts.kv_bytes_per_token())} to a bf16 cache;")
        print(f"  training on it takes {show_count(flops.training)} floating-point operations")

    # The latent cache by hand: 61 layers, each keeps a latent of 512 numbers and one rotary key of 64.
    assert count(preset("v3-671b")).kv_elements_per_token == 61 * (512 + 64)


if __name__ == "__main__":
    main()
