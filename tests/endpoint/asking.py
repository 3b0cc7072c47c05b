"""A client of the loopback endpoint, quick to try again; the prices are those that the server counts with."""

from pathlib import Path

from server import HIT_USD, MISS_USD, OUTPUT_USD, Server

from tenth.base.records import AskParams, Message, Reply, Role
from tenth.endpoint.client import EndpointClient
from tenth.endpoint.responder import EndpointResponder
from tenth.endpoint.settings import EndpointSettings, Patience, Prices

KEY_VARIABLE = "TENTH_LOOPBACK_KEY"
PRICES = Prices(hit_usd=HIT_USD, miss_usd=MISS_USD, output_usd=OUTPUT_USD)
QUICK = Patience(first_seconds=0.001, most_seconds=0.002)
SHORT = AskParams(max_tokens=200)


def client_of(server: Server, directory: Path, **settings) -> EndpointClient:
    """The key must be in the environment under KEY_VARIABLE."""
    given = {"model": "deepseek-reasoner", "key_variable": KEY_VARIABLE, "patience": QUICK} | settings
    return EndpointClient(EndpointSettings(base_url=server.url, **given), directory)


def user(text: str) -> list[Message]:
    return [Message(role=Role.USER, content=text)]


def ask(client: EndpointClient, *texts: str, params: AskParams = SHORT) -> list[Reply]:
    """The first reply to each text."""
    return [
        replies[0] for replies in EndpointResponder(client).respond([user(each) for each in texts], params)
    ]
