"""The stores of a worker, as the settings say: each on connections of its own, made at its first call."""

from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from embeddings.keepsake import KEPT_MS, RedisKeepsake
from embeddings.patience import Patience
from embeddings.redis_connection import UNWATCHED, Watch
from embeddings.redis_store import RedisUserStore
from embeddings.spend_redis import RedisSpendLedger
from streams.settings import Settings

_OVER_HTTP_S = 0.5
"""Who answers over HTTP waits for Redis so long at most: whoever asks is told that there is no answer a second late."""


def patience_of(settings: Settings) -> Mapping[str, Patience]:
    """How long those wait for Redis who have an answer without it: both lanes' ads, requests, HTTP's two pages."""
    longest_s = settings.redis.timeout_s
    lanes = {lane: Patience(longest_s) for lane in ("events", "requests")}
    return lanes | {page: Patience(min(longest_s, _OVER_HTTP_S)) for page in ("posted", "stored")}


def user_store(settings: Settings, watch: Watch = UNWATCHED, patience: Patience | None = None) -> RedisUserStore:
    """A store of its own connections, as the settings say; it connects at its first call."""
    s = settings.redis
    return RedisUserStore(
        _with_credentials(s.url, s.username, s.password.get_secret_value() if s.password else None),
        width=settings.learner.dimensions,
        buckets=s.buckets,
        prefix=s.prefix,
        state_ttl_s=s.state_ttl_s,
        timeout_s=s.timeout_s,
        watch=watch,
        patience=patience,
    )


def spend_ledger(settings: Settings, watch: Watch = UNWATCHED, patience: Patience | None = None) -> RedisSpendLedger:
    """A spend ledger of its own connections, as the settings say; it connects at its first call."""
    s = settings.redis
    url = _with_credentials(s.url, s.username, s.password.get_secret_value() if s.password else None)
    return RedisSpendLedger(url, prefix=s.prefix, timeout_s=s.timeout_s, watch=watch, patience=patience)


def _with_credentials(url: str, username: str | None, password: str | None) -> str:
    if not username and not password:
        return url
    parts = urlsplit(url)
    who = f"{quote(username or '', safe='')}:{quote(password or '', safe='')}@"
    return urlunsplit(parts._replace(netloc=who + parts.netloc))


def keepsake(settings: Settings, name: str, kept_ms: int = KEPT_MS, watch: Watch = UNWATCHED) -> RedisKeepsake:
    """Where workers leave something for those to come, such as when people come; it connects at its first call."""
    s = settings.redis
    url = _with_credentials(s.url, s.username, s.password.get_secret_value() if s.password else None)
    return RedisKeepsake(url, name, prefix=s.prefix, timeout_s=s.timeout_s, kept_ms=kept_ms, watch=watch)
