"""What every test shares: property tests without a stop-watch, random generators at a known place."""

import random

import hypothesis
import pytest

# A deadline measures how busy the machine is, not whether the code is right. "derandomize" makes a red test
# red again on the next run; `make soak` takes the "soak" profile, which searches further.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=500)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _known_seeds() -> None:
    """No result may depend on which test ran before."""
    random.seed(0)
    try:
        import torch
    except ImportError:  # the torch-free rooms can be tested without it
        return
    torch.manual_seed(0)
    # A command that ran in this process earlier may have asked for less than float32.
    torch.set_float32_matmul_precision("highest")
