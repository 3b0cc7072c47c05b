"""Which endpoint, which model, how patiently, and for how much money.

Why: whoever pays says so in one place, and it is checked before the first request.
Not here: the key. Only the name of the environment variable that holds it is ever passed on.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tenth.base.errors import ConfigError
from tenth.base.records import Usage

_PER_TOKEN = 1e-6  # prices are per million


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Dollars per million tokens, in the three classes of DeepSeek's price list. Thoughts are output."""

    hit_usd: float  # of the prompt, found in the provider's cache
    miss_usd: float  # the rest of the prompt
    output_usd: float

    def __post_init__(self) -> None:
        for name in ("hit_usd", "miss_usd", "output_usd"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name} = {getattr(self, name)} must be dollars per million tokens, 0 or more."
                )

    def usd(self, usage: Usage) -> float:
        """What an answer cost."""
        missed = usage.prompt_tokens - usage.cached_tokens
        return _PER_TOKEN * (
            self.hit_usd * usage.cached_tokens
            + self.miss_usd * missed
            + self.output_usd * usage.completion_tokens
        )

    def most_usd(self, *, prompt_tokens: int, completion_tokens: int) -> float:
        """What an answer can cost, wherever its prompt is found."""
        return _PER_TOKEN * (
            max(self.hit_usd, self.miss_usd) * prompt_tokens + self.output_usd * completion_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When an answer has gone wrong. DeepSeek closes a connection after 30 minutes itself."""

    connect_seconds: float = 10.0
    header_seconds: float = 600.0  # until it begins to answer
    idle_seconds: float = 120.0  # between two bytes; comments that keep alive count
    total_seconds: float = 1800.0
    max_bytes: int = 64 << 20  # a stream spends some 300 bytes on a token

    def __post_init__(self) -> None:
        for name in ("connect_seconds", "header_seconds", "idle_seconds", "total_seconds", "max_bytes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} = {getattr(self, name)} must be a positive number.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What is tried again after a fault that may pass: waits double from `first_seconds`, jittered."""

    max_retries: int = 6
    first_seconds: float = 0.5
    most_seconds: float = 8.0
    told_seconds: float = 120.0  # the longest Retry-After that is waited for

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ConfigError(f"max_retries = {self.max_retries} must be 0 (ask once) or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """One model behind one OpenAI-compatible API."""

    base_url: str  # with or without /v1
    model: str
    key_variable: str | None = None  # environment variable that holds the key; None: no key is needed
    prices: Prices | None = None
    budget_usd: float | None = None  # of everything ever spent by way of one directory
    concurrency: int = 8
    is_streaming: bool = True  # long thoughts survive proxies that close silent connections
    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if not self.model:
            raise ConfigError("the endpoint's model has no name; give one, such as 'deepseek-reasoner'.")
        if not 1 <= self.concurrency <= 1024:
            raise ConfigError(f"concurrency = {self.concurrency} must be from 1 to 1024.")
        if self.budget_usd is not None and not 0 < self.budget_usd < math.inf:
            raise ConfigError(f"budget_usd = {self.budget_usd} must be a positive number of dollars.")
        if self.budget_usd is not None and self.prices is None:
            raise ConfigError(
                f"budget_usd = {self.budget_usd:g} cannot be kept without prices; give them in dollars per "
                "million tokens: cache hit, cache miss, output."
            )

    @property
    def url(self) -> str:
        """Where chat completions are asked for: under /v1, unless the address has a path of its own."""
        base = self.base_url.rstrip("/").removesuffix("/chat/completions")
        return f"{base if urlsplit(base).path else base + '/v1'}/chat/completions"

    @property
    def place(self) -> str:
        """Host and path, for the cache: http or https, with or without /v1, it is the same model."""
        parts = urlsplit(self.url)
        return parts.netloc.lower() + parts.path

    def key(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The secret. It goes into a header and nowhere else."""
        if self.key_variable is None:
            return None
        key = environment.get(self.key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"the environment variable {self.key_variable} holds no API key; put yours there, or name "
                "the variable that has it."
            )
        return key


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # what a resolver will do; a UnicodeError is a ValueError
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_fine = is_fine and url.isprintable() and " " not in url
    except ValueError:
        is_fine = False
    else:
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                "the endpoint's address holds a user name, a password, a query or a fragment; give the plain "
                "address, and a key by way of an environment variable."
            )
    if not is_fine:
        raise ConfigError(
            f"'{url}' is no address of an endpoint; give one such as https://api.deepseek.com/v1."
        )
