"""The exception tree: every error a user can cause lives here.

Why: the command line prints one clear sentence for a `TenthError` and a traceback for anything else, so
this file decides what is the user's to mend and what is a fault of ours.
Not here: wording. Each raise site names the thing, shows the value and says what to do.
"""


class TenthError(Exception):
    """Something the user can mend. Its message is one sentence with the remedy."""


class ConfigError(TenthError):
    """A recipe, an override or a configuration that cannot be run as written."""


class DataError(TenthError):
    """A corpus, problem file or preference file that cannot be read as what it claims to be."""


class CheckpointError(TenthError):
    """A checkpoint or model directory that is missing, damaged or of another shape."""


class RunError(TenthError):
    """A run directory that cannot be continued, or a run that had to stop."""


class VerifierError(TenthError):
    """A verifier that failed or ran past its deadline; never the same as a wrong answer."""


class QueueFull(TenthError):  # noqa: N818  as queue.Full: a state, and one may try again
    """More requests are waiting than the engine was told to hold."""
