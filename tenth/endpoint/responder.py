"""An endpoint in the shape of a `Responder` (rollout/responder.py): conversations in, n replies each out.

Not here: how one sample is asked for (client.py).
"""

from collections import Counter
from collections.abc import Sequence

from tenth.base.records import AskParams, Message, Reply
from tenth.endpoint.client import Ask, EndpointClient


class EndpointResponder:
    """Asks for n samples by n requests with different seeds: few servers know `n`."""

    def __init__(self, client: EndpointClient, *, name: str | None = None) -> None:
        self.client = client
        self.name = name or client.settings.model

    def respond(self, conversations: Sequence[Sequence[Message]], params: AskParams) -> list[list[Reply]]:
        """`params.n` replies to each conversation, in order. One that comes twice gets further samples."""
        times_seen = Counter[tuple[Message, ...]]()
        asks = []
        for each in conversations:
            messages = tuple(each)
            first = times_seen[messages] * params.n
            times_seen[messages] += 1
            asks += [
                Ask(messages=messages, params=params, sample=first + sample) for sample in range(params.n)
            ]
        replies = iter(self.client.ask(asks))
        return [[next(replies) for _ in range(params.n)] for _ in conversations]
