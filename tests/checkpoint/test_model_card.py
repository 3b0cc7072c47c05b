from tenth.checkpoint.model_card import ModelCard


def test_a_card_says_all_that_is_known():
    card = ModelCard(
        name="little-zero",
        licence="mit",
        base_model="someone/base",
        datasets=("chain_sum, generated",),
        stages=("Pre-trained on documents.", "Reinforced by GRPO."),
        cost="1.5 hours, $0.30",
        scores={"chain_sum, sampled": 0.75},
        command="tenth run recipe.toml",
    )
    assert card.to_markdown() == (
        "---\n"
        'license: "mit"\n'
        'base_model: "someone/base"\n'
        "library_name: transformers\n"
        "tags:\n- tenth\n- text-generation\n"
        "---\n\n"
        "# little-zero\n\n"
        "## Lineage\n\n1. Pre-trained on documents.\n2. Reinforced by GRPO.\n\n"
        "## Data\n\n- chain_sum, generated\n\n"
        "## Cost\n\n1.5 hours, $0.30\n\n"
        "## Scores\n\n| measured | score |\n|---|---|\n| chain_sum, sampled | 0.750 |\n\n"
        "## Command\n\n```\ntenth run recipe.toml\n```\n"
    )


def test_what_is_not_known_is_left_out():
    text = ModelCard(name="x").to_markdown()
    assert text == "---\nlibrary_name: transformers\ntags:\n- tenth\n- text-generation\n---\n\n# x\n"


def test_no_text_breaks_out_of_its_place():
    card = ModelCard(name="x", licence='m"it\n---\n# y', stages=("one\n## two",), scores={"a | b\nc": 1.0})
    text = card.to_markdown()
    assert text.count("\n---\n") == 1
    assert "\n## two" not in text
    assert "| a \\| b c | 1.000 |" in text
