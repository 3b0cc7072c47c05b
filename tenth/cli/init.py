"""`tenth init [FILE]`: a recipe with every knob, its default and what it does, to change and run.

Why: the quickest way to learn what can be set is a file in which everything is set.
In:  a file name that does not exist yet.  Out: the file.
Not here: the schema, which checks it (pipeline/recipe.py); a test compares the two, value by value.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from tenth.base.errors import ConfigError
from tenth.base.files import write_whole

TEMPLATE = """\
# An R1-Zero run: documents -> base -> measured -> reinforced -> measured -> report.
#   start or continue:  tenth run {file}
#   change one value:   tenth run {file} rl.steps=20 name=shorter
# Values are the defaults; a line that begins with "# key =" is off until its "#" is removed.

name = {name}                       # the run's directory under runs/
flow = "zero"                       # zero: R1-Zero alone; r1: all of R1 (recipes/tiny/r1.toml)
seed = 1                            # of everything random: documents, weights, problems, samples
model = "tiny-zero"                 # a preset; `tenth inspect tiny-zero` counts it
template = "zero_short"             # zero: R1-Zero's frame; zero_short: without its explanation; deepseek
price_usd_per_hour = 0.10           # of this machine; only the report uses it
checkpoint_every_seconds = 60.0     # what a crash can cost
keep_checkpoints = 2                # per stage

# Problem families (`tenth tasks list` shows all). document_levels: how hard the base's documents are;
# levels: how hard the questions of reinforcement and of the test are. Both ends are included.
families = [
    {{ name = "chain_sum", document_levels = [4, 8], levels = [4, 8] }},
    {{ name = "sort",      document_levels = [5, 9], levels = [5, 9] }},
    {{ name = "boolean",   document_levels = [3, 6], levels = [3, 8] }},
]
problem_files = []                  # your own: .jsonl or .parquet with prompt and answer; trained on, asked

[documents]                         # what the base reads
tokens = 8_000_000                  # different ones; pre-training may read them more than once
vocab_size = 512                    # of the tokenizer that is trained on them
think_share = {think_share}    # of the solutions: step by step; the others answer at once
mistake_share = 0.10                # of all solutions: a wrong answer, unnoticed
corrected_share = 0.05              # of the step-by-step ones: a slip that is noticed and redone
untagged_share = 0.15               # of all: the answer without its tags
boxed_share = 0.0                   # of the untagged ones: a sentence with \\boxed{{}}
narrated_share = 0.0                # of the step-by-step ones: a word in front of each step
mixed_share = 0.0                   # of the narrated ones: in both languages, step by step
small_talk_share = 0.0              # of the tokens: general questions
text_files = []                     # your own: .txt, .jsonl with "text", .gz of both
text_share = 0.0                    # of the tokens, from text_files
held_out_share = 0.01               # of the documents, never trained on: bits per byte

[pretrain]                          # how the base learns (DeepSeek-V3 section 4.2, scaled down)
tokens = 12_000_000
sequence_length = 256
sequences_per_step = 32
ramp_from_sequences = 16            # the batch grows from this many sequences ...
ramp_share = 0.05                   # ... during this share of the steps
warmup_share = 0.02                 # of the steps: the learning rate rises,
constant_until = 0.6                # stays until here,
floor = 0.05                        # and falls along a cosine to this share of its peak
mtp_weight = [0.3, 0.1]             # of multi-token prediction, before and after two thirds of the tokens

[pretrain.optim]
kind = "muon"                       # muon: for the matrices, AdamW for the rest; adamw: for everything
lr = 3e-3                           # AdamW's peak
# muon_lr = 3e-3                    # Muon's peak, if it should differ from lr
weight_decay = 0.1
max_grad_norm = 1.0

[rl]                                # R1-Zero: GRPO with rules as the only judge
steps = 60
prompts_per_step = 32
num_generations = 16                # answers per prompt, judged against each other
minibatch_size = 512                # rollouts per update; prompts x generations in one go is on-policy
max_completion_length = 160         # tokens
temperature = 1.0
beta = 0.001                        # weight of the KL to the reference; 0 turns it off
reference_refresh_steps = 20        # the reference becomes the policy every so many steps
epsilon = 0.2                       # clip
# epsilon_high = 0.28               # clip-higher: another bound for growing probabilities (DAPO)
loss_type = "grpo"                  # how token losses are averaged; a wrong name lists the others
scale_rewards = "group"             # what an advantage is divided by; a wrong name lists the others
num_iterations = 1                  # updates per batch of rollouts
mask_truncated = false              # leave answers out that were cut off by their length
overlong_buffer = 0                 # tokens before max_completion_length in which length is penalised (DAPO)
dynamic_sampling = false            # draw again for groups that all agree, up to twice the prompts (DAPO)
accuracy_weight = 1.0
format_weight = 0.2
language_weight = 0.0               # words of the thinking in the question's language (R1, eq. 7)
reward_functions = {{}}               # your own with TRL's signature: {{ "rewards.py:my_reward" = 1.0 }}
warmup_steps = 5
micro_batch_tokens = 8192           # how much is computed at once; changes memory and speed only

[rl.optim]
kind = "adamw"
lr = 1e-4
# muon_lr = 1e-4
weight_decay = 0.0
max_grad_norm = 1.0

[eval]                              # how models are measured (R1 section 3)
problems_per_family = 48
samples = 4                         # per problem; pass@1 is averaged over them
base_samples = 16                   # of the base as its template samples it, for pass@16
temperature = 0.6
top_p = 0.95
# problem_file = "zero.problems.json"   # from `tenth freeze`: a test set that must not change

[controls]
enabled = false                     # also train what else could explain the gain; doubles the time
"""
_THINK_SHARE = 1 / 3


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.toml"),
) -> None:
    """Write a commented recipe to start from."""
    if path.exists():
        raise ConfigError(f"{path} exists; name another file, or remove it first.")
    write_whole(path, recipe_text(path).encode())
    typer.echo(f"{path} is written; change it and run: tenth run {path}")


def recipe_text(path: Path) -> str:
    """The recipe, named after its file."""
    return TEMPLATE.format(
        file=path, name=json.dumps(path.stem, ensure_ascii=False), think_share=_THINK_SHARE
    )
