"""The exception tree: every error a user can cause lives here.

Why: the command line prints one clear sentence for a `TenthError` and a traceback for anything else, so
this file decides what is the user's to mend and what is a fault of ours.
Not here: wording. Each raise site names the thing, shows the value and says what to do.
"""

_MAX_CHARS = 2000


class TenthError(Exception):
    """Something the user can mend. Its message is one sentence with the remedy.

    Names and values in it may come out of a stranger's file, so it is shown on one line: what would move a
    cursor or cannot be printed as its escape, and without the middle of what is too long.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if not text.isprintable():
            text = "".join(map(_printable, text))
        if len(text) > _MAX_CHARS:
            text = f"{text[: _MAX_CHARS // 2]}...{text[-_MAX_CHARS // 4 :]}"
        return text


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


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


class EndpointError(TenthError):
    """An endpoint that refuses us, or answers nothing usable however often it is asked."""


class BudgetExceeded(TenthError):  # noqa: N818  a limit that held
    """The next answer could cost more than is left of the money that may be spent."""


class SandboxUnavailable(TenthError):  # noqa: N818  a state of the machine
    """This machine offers no way to contain a program, so none is run."""


class QueueFull(TenthError):  # noqa: N818  as queue.Full: a state, and one may try again
    """More requests are waiting than the engine was told to hold."""
