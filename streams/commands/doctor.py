"""Is everything there that Marquee needs, and if not, what to do: `marquee doctor`.

A check asks one thing and answers with a `Finding`; it never raises. What a server said is judged by pure functions.
"""

import asyncio
import platform
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from aiokafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from aiokafka.errors import KafkaError

from deploy.kafka_admin import admin_client, misled, unreached
from embeddings import jit
from embeddings.errors import EmbeddingsError
from embeddings.events import CONSENT_ALL
from ranking.ranker import state_of
from streams.addresses import is_loopback, url_of
from streams.commands import paused
from streams.commands.console import Failed
from streams.commands.extras import missing
from streams.commands.snapshots import announcements
from streams.configuration import SettingsError
from streams.contract.consent import CONSENT_LEARN, NOTHING, Judge
from streams.contract.decode import Decoded, decode
from streams.contract.parsing import Rules
from streams.contract.records import ModelManifest
from streams.contract.unread import spoken, unread_members
from streams.http_settings import Http
from streams.process.folders import folders_of, writable
from streams.settings import Settings
from streams.transport import topics
from streams.transport.brokers import unanswered
from streams.transport.tail import last_records
from streams.worker.complaints import MISDATED, MISROUTED
from streams.worker.stores import user_store

_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found. `ok` is false where a worker could not do its work; `advice` may come with either."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks; those that wait for a server run at the same time, each for at most a few seconds."""
    asked: dict[str, Callable[[Settings], Awaitable[Finding]]] = {
        "broker": _broker,
        "topics": _topics,
        "redis": lambda s: asyncio.to_thread(_redis, s),
        "dead letters": lambda s: asyncio.to_thread(_paused, s),
        "producers": _producers,
        "ranker": _ranker,
    }
    found = await asyncio.gather(*(_patiently(name, check(settings)) for name, check in asked.items()))
    here = [_python(), _codecs(), _loops(), _folders(settings), _faiss(), _torch(), _demo()]
    here.append(judge_gpu(_gpus(), _faiss_gpus()))
    return [judge_consent(settings), judge_http(settings.http), *found, *here]


def judge_consent(settings: Settings) -> Finding:
    """A worker refuses to start before someone decided what silence about consent means."""
    default = settings.consent.default
    advice = "set MARQUEE_CONSENT__DEFAULT to deny (the safe answer) or grant" if default is None else ""
    return Finding(name="consent", ok=default is not None, detail=f"consent.default is {default}", advice=advice)


def judge_http(http: Http) -> Finding:
    """Who may post events and read slates over HTTP; a gateway before it may see to that, so that it is no fault."""
    url, advice = url_of(http.host, http.port, tls=http.tls_cert is not None), []
    reached = not is_loopback(http.host)
    if reached and http.token is None:
        advice.append("set http.token: whoever reaches this address may post events and read anybody's slate")
    if reached and http.token is not None and http.tls_cert is None:
        advice.append("set http.tls_cert and http.tls_key, or have a proxy speak TLS: the token goes in the clear")
    who = "whoever has the token" if http.token else "whoever reaches it"
    detail = f"{url}, /v1 answers {who}{'' if reached else ' on this machine'}"
    return Finding(name="http", ok=True, detail=detail, advice="; ".join(advice))


def judge_redis(info: Mapping[str, str], *, policy: str) -> Finding:
    """Redis by what INFO says and its `maxmemory-policy`; a user who may not ask for INFO is no fault."""
    if not info:
        unseen = "grant the command info to see version and maxmemory-policy here"
        return Finding(name="redis", ok=True, detail="reads, writes and scripts work", advice=unseen)
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version"))
    advice = []
    if policy != "noeviction":
        advice.append("set maxmemory-policy noeviction: an evicted user state is lost")
    if int(version.partition(".")[0]) < 7:
        advice.append("run Redis 7 or later, or Valkey")
    ok = not advice
    if info.get("aof_enabled") != "1":
        advice.append("with appendonly yes a restart keeps what is older than the topics' retention")
    detail = f"{product} {version}, maxmemory-policy {policy}"
    return Finding(name="redis", ok=ok, detail=detail, advice="; ".join(advice))


def judge_topics(plan: topics.Plan, reasons: list[str]) -> Finding:
    """Topics by what `topics apply` would do and by why a worker may not start."""
    detail = f"{len(plan.unchanged)} as they should be, {len(plan.create)} missing, {len(plan.drift)} differences"
    advice = "run `marquee topics apply`" if plan.create else "; ".join([*reasons, *map(str, plan.drift)])
    return Finding(name="topics", ok=not reasons, detail=detail, advice=advice)


def judge_producers(decoded: Decoded, topic: str) -> Finding:
    """Producers of events by the last records they wrote, read as a worker reads them. What it can mend is no fault."""
    records = len(decoded.batch) + len(decoded.aside)
    codes = Counter(letter.code.value for letter in decoded.dead)
    traceless = int(np.count_nonzero(decoded.batch.consent_B & CONSENT_LEARN != CONSENT_LEARN))
    unread = [members for record in decoded.records if (members := unread_members(record))]
    common = Counter(chain.from_iterable(unread)).most_common(5)
    names = spoken(name for name, _ in common)
    wrong = [
        (traceless, "leave no trace and bring no slate: neither `consent` nor consent.default allows it"),
        (len(unread), f"have members that nobody reads ({names})"),
        (len(decoded.misrouted), MISROUTED),
        (decoded.misdated, MISDATED),
        (len(decoded.dead), f"become dead letters ({', '.join(f'{n} {code}' for code, n in codes.items())})"),
    ]
    advice = "; ".join(f"{count} of {records} {said}" for count, said in wrong if count)
    return Finding(name="producers", ok=True, detail=f"read the last {records:,} records of {topic}", advice=advice)


def judge_gpu(torch_sees: list[str], faiss_sees: int) -> Finding:
    """GPUs by what torch and FAISS see; none is no fault."""
    if not torch_sees and not faiss_sees:
        return Finding(name="gpu", ok=True, detail="none: search and ranking run on the CPU")
    detail = f"{', '.join(torch_sees) or 'torch sees none'}; FAISS sees {faiss_sees}"
    advice = "" if faiss_sees else "pip install 'marquee[gpu]' for FAISS on the GPU; until then torch searches there"
    return Finding(name="gpu", ok=True, detail=detail, advice=advice)


def judge_ranker(serves: ModelManifest | None) -> Finding:
    """Does the ranker's order serve? Until it is taught slates stand in retrieval order, which is no fault."""
    m = serves.metrics if serves is not None else {}
    if serves is None or not {"ranks", "examples", "wanted", "gain"} <= m.keys():
        detail = f"snapshot {serves.version} does not say" if serves is not None else "no snapshot is announced yet"
        return Finding(name="ranker", ok=True, detail=f"{detail}: slates stand in retrieval order")
    taught = f"snapshot {serves.version}, {m['examples']:,.0f} examples, gain {m['gain']:+.3f} over retrieval order"
    state = state_of(bool(m["ranks"]), m["examples"], m["wanted"])
    if state == "serves":
        return Finding(name="ranker", ok=True, detail=f"serves: {taught}")
    advice = {
        "few_examples": f"it takes {m['wanted']:,.0f} examples; workers tell them: observe.enabled, observe.rate",
        "behind_retrieval": "it serves once its order is better than that of retrieval",
    }
    return Finding(name="ranker", ok=True, detail=f"does not serve yet: {taught}", advice=advice.get(state, ""))


async def _patiently(name: str, check: Awaitable[Finding]) -> Finding:
    """The finding of a check, or why there is none."""
    try:
        return await asyncio.wait_for(check, _PATIENCE_S)
    except TimeoutError:
        return Finding(name=name, ok=False, detail=f"no answer within {_PATIENCE_S:g} s", advice=_ADVICE[name])
    except (KafkaError, EmbeddingsError, OSError) as error:
        said = str(error).removeprefix(f"{type(error).__name__}: ")  # Kafka's say their kind themselves
        detail = unanswered(error) or f"{type(error).__name__}: {said}"
        return Finding(name=name, ok=False, detail=detail, advice=_ADVICE[name])


_ADVICE = {
    "dead letters": "Redis must answer first",
    "broker": "check kafka.bootstrap, kafka.security_protocol and that the broker runs; `marquee up` brings one",
    "topics": "the broker must answer first",
    "producers": "the events topic must be there first",
    "ranker": "the models topic must be there first",
    "redis": "check redis.url, redis.username, redis.password and that Redis runs; `marquee up` brings one",
}


async def _broker(settings: Settings) -> Finding:
    options = settings.kafka.client_options()
    async with admin_client(**options) as admin:
        cluster, away = await admin.describe_cluster(), await unreached(admin, options)
    nodes = len(cluster["brokers"])
    short = settings.topics.replication > nodes
    advice = f"topics.replication is {settings.topics.replication}, but there are {nodes} brokers" if short else ""
    if away:
        advice = misled(settings.kafka.bootstrap, away)
    detail = f"{nodes} broker(s) of {cluster['cluster_id']} at {settings.kafka.bootstrap}"
    return Finding(name="broker", ok=not (short or away), detail=detail, advice=advice)


async def _topics(settings: Settings) -> Finding:
    plan, reasons = await topics.review(settings)
    return judge_topics(plan, reasons)


async def _producers(settings: Settings) -> Finding:
    topic, events = settings.topics.name("events"), settings.events
    parts = await last_records(settings.kafka.client_options(), topic)
    silence = CONSENT_ALL if settings.consent.default == "grant" else NOTHING
    rules = Rules(
        judge=Judge(silence, settings.consent.vendor_id),
        partitions={topic: settings.topics.partitions},
        max_bytes=events.max_bytes,
        max_depth=events.max_depth,
        max_future_ms=events.max_future_ms,
    )
    return judge_producers(decode(parts, rules, time.time_ns() // 1_000_000), topic)


async def _ranker(settings: Settings) -> Finding:
    """Of the snapshot that serves, pinned or the newest."""
    try:
        said = await announcements(settings)
    except Failed as error:
        return Finding(name="ranker", ok=False, detail=str(error), advice=_ADVICE["ranker"])
    return judge_ranker(said.pin or said.versions.get(max(said.versions, default=0)))


def _redis(settings: Settings) -> Finding:
    """Do once what a worker does."""
    store = user_store(settings)
    try:
        info = store.rehearse()
    finally:
        store.close()
    return judge_redis(info, policy=info.get("maxmemory_policy", "unknown"))


def _paused(settings: Settings) -> Finding:
    said = paused.said(settings)
    return Finding(name="dead letters", ok=said is None, detail=said or "no partition is paused")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(name="python", ok=sys.version_info >= (3, 11), detail=f"{version} on {platform.machine()}")


def _codecs() -> Finding:
    readable = {"gzip": has_gzip(), "snappy": has_snappy(), "lz4": has_lz4(), "zstd": has_zstd()}
    absent = " or ".join(name for name, here in readable.items() if not here)
    advice = (
        f"pip install cramjam: the first record compressed with {absent} ends a worker or learner" if absent else ""
    )
    said = ", ".join(f"{name} is {'read' if here else 'missing'}" for name, here in readable.items())
    return Finding(name="codecs", ok=not absent, detail=said, advice=advice)


def _loops() -> Finding:
    advice = "" if jit.kept else "set NUMBA_CACHE_DIR to a folder to write to, or every start compiles for a minute"
    return Finding(name="loops", ok=True, detail=f"compiled loops are {'' if jit.kept else 'not '}kept", advice=advice)


def _folders(settings: Settings) -> Finding:
    """A learner writes snapshots and checkpoints; a worker needs no folder."""
    if missing("learner"):
        return Finding(name="folders", ok=True, detail="a worker writes to none")
    wrong = []
    for folder, setting in folders_of(settings):
        try:
            writable(folder, setting)
        except SettingsError as error:
            wrong.append(str(error))
    detail = "; ".join(wrong) or "a learner can write snapshots and checkpoints"
    return Finding(name="folders", ok=not wrong, detail=detail, advice="a worker needs none" if wrong else "")


def _faiss() -> Finding:
    if missing("cpu"):
        advice = "pip install 'marquee[cpu]', or 'marquee[gpu]' for CUDA"
        return Finding(name="faiss", ok=False, detail="not installed: a worker searches with it", advice=advice)
    import faiss

    detail = f"{faiss.__version__} ({faiss.get_compile_options().strip()}), {faiss.omp_get_max_threads()} threads"
    return Finding(name="faiss", ok=True, detail=detail)


def _torch() -> Finding:
    if missing("learner"):
        return Finding(name="torch", ok=True, detail="not installed: the learner needs it (marquee[learner])")
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU"
    return Finding(name="torch", ok=True, detail=f"{torch.__version__}, {built}, {torch.get_num_threads()} threads")


def _demo() -> Finding:
    absent = missing("demo")
    detail = f"{', '.join(absent)} not installed: `marquee demo` and `up` need them (marquee[demo])"
    return Finding(name="demo", ok=True, detail=detail if absent else "servers and plots are installed")


def _gpus() -> list[str]:
    if missing("learner"):
        return []
    import torch

    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]


def _faiss_gpus() -> int:
    if missing("cpu"):
        return 0
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0
