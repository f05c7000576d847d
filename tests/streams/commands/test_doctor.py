import asyncio
import socket

import pytest
import redis
from aiokafka.errors import KafkaConnectionError
from typer.testing import CliRunner

from deploy.embedded import Broker, Valkey
from deploy.processes import exchange, free_port
from embeddings.events import CONSENT_ALL, Source
from embeddings.ids import murmur2
from embeddings.stoprule import BadRun
from embeddings.store import PartitionMark
from streams.commands.cli import app
from streams.commands.doctor import (
    Finding,
    examine,
    judge_consent,
    judge_gpu,
    judge_http,
    judge_producers,
    judge_ranker,
    judge_redis,
    judge_topics,
)
from streams.commands.paused import release
from streams.contract.consent import NOTHING, Judge
from streams.contract.decode import decode
from streams.contract.parsing import Rules
from streams.contract.records import ModelManifest
from streams.http_settings import Http
from streams.settings import Consent, Kafka, Redis, Settings, Topics
from streams.transport import topics
from streams.worker.stores import user_store
from tests.embeddings import saving
from tests.streams.builders import NOW_MS, an_event

VALKEY_9 = {"valkey_version": "9.1.2", "redis_version": "7.2.4", "aof_enabled": "1"}
REDIS_7 = {"redis_version": "7.0.15", "aof_enabled": "0"}


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_valkey_is_called_by_its_own_name_and_needs_no_advice() -> None:
    finding = judge_redis(VALKEY_9, policy="noeviction")
    assert finding.ok
    assert finding.detail.startswith("Valkey 9.1.2, maxmemory-policy noeviction")
    assert finding.advice == ""


def test_redis_7_is_good_enough_and_told_what_would_be_better() -> None:
    finding = judge_redis(REDIS_7, policy="noeviction")
    assert finding.ok
    assert "appendonly" in finding.advice


def test_redis_that_evicts_is_not_ok() -> None:
    finding = judge_redis(VALKEY_9, policy="allkeys-lru")
    assert not finding.ok
    assert "noeviction" in finding.advice


def test_old_redis_is_not_ok() -> None:
    assert not judge_redis({"redis_version": "6.2.1"}, policy="noeviction").ok


def test_undecided_consent_is_not_ok() -> None:
    assert not judge_consent(Settings()).ok
    assert judge_consent(Settings(consent=Consent(default="deny"))).ok


def test_who_may_ask_over_http_is_said_and_an_open_address_warned_of() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        assert judge_http(Http(host=host)).advice == ""
    for host in ("0.0.0.0", "::", "10.0.0.7", "worker-1"):
        finding = judge_http(Http(host=host))
        assert (finding.ok, "set http.token" in finding.advice) == (True, True)
        assert "whoever reaches it" in finding.detail
    finding = judge_http(Http(host="0.0.0.0", token="open sesame"))  # type: ignore[arg-type]
    assert "http.token" not in finding.advice
    assert "the token goes in the clear" in finding.advice
    assert "open sesame" not in f"{finding}"


def test_no_gpu_is_no_fault() -> None:
    assert judge_gpu([], 0).ok
    assert "marquee[gpu]" in judge_gpu(["NVIDIA H100"], 0).advice
    assert judge_gpu(["NVIDIA H100"], 1).advice == ""


def test_differences_are_told_and_no_obstacle() -> None:
    drift = topics.Drift(topic="marquee.events.v1", what="retention.ms", wanted="1", found="2")
    finding = judge_topics(topics.Plan(create=(), drift=(drift,), unchanged=("marquee.ads.v1",)), [])
    assert finding.ok
    assert finding.advice == "marquee.events.v1: retention.ms is 2, settings say 1"


def test_what_producers_should_set_is_said_with_how_many() -> None:
    users = [user for user in (f"u{n}" for n in range(100)) if int(murmur2([user.encode()])[0]) % 8 != 3]
    good = [an_event(n, user) for n, user in enumerate(users)]
    seconds = an_event(200, users[0])._replace(value=b'{"type":"play","item_id":"a","event_time":1750000000}')
    undated = [record._replace(timestamp=-1) for record in good]
    rules = Rules(judge=Judge(CONSENT_ALL), partitions={"events": 8})
    finding = judge_producers(decode([(Source("events", 3), [*undated, seconds])], rules, NOW_MS), "events")
    assert finding.ok, "a worker mends it"
    assert f"{len(users)} of {len(users) + 1} are not in the partition" in finding.advice
    assert "partitioner=murmur2_random" in finding.advice
    assert "epoch milliseconds" in finding.advice
    assert "1 seconds" in finding.advice
    here = Rules(judge=Judge(CONSENT_ALL))
    assert judge_producers(decode([(Source("events", 3), good)], here, NOW_MS), "events").advice == ""


def test_events_that_come_to_nothing_and_members_that_nobody_reads_are_counted_and_named() -> None:
    silent = [an_event(n, "u1") for n in range(3)]
    said = [an_event(3, "u1", consent={"gdpr": 0}), an_event(4, "u1", consent={"store": True}, watched_s=9)]
    rules = Rules(judge=Judge(NOTHING))
    advice = judge_producers(decode([(Source("events", 0), [*silent, *said])], rules, NOW_MS), "events").advice
    assert "4 of 5 leave no trace and bring no slate" in advice
    assert "1 of 5 have members that nobody reads (" in advice
    assert {"consent.store", "watched_s"} == set(advice.rpartition("(")[2].rstrip(")").split(", "))


def test_whether_the_ranker_serves_is_said_and_why_not() -> None:
    def of(**metrics: float) -> Finding:
        return judge_ranker(ModelManifest(version="7", uri="x", sha256="x", metrics=metrics))

    assert "no snapshot is announced yet" in judge_ranker(None).detail
    assert "snapshot 7 does not say" in of().detail
    assert of(ranks=1, examples=5_000, wanted=1_000, gain=0.2).detail.startswith("serves: snapshot 7, 5,000 examples")
    few = of(ranks=0, examples=120, wanted=1_000, gain=0.2)
    assert (few.ok, "it takes 1,000 examples" in few.advice) == (True, True)
    assert "better than that of retrieval" in of(ranks=0, examples=5_000, wanted=1_000, gain=-0.1).advice


async def test_everything_embedded_is_well(embedded_broker: Broker, valkey: Valkey, topic_prefix: str) -> None:
    settings = Settings(
        kafka=Kafka(bootstrap=embedded_broker.bootstrap),
        redis=Redis(url=valkey.url),
        topics=Topics(prefix=topic_prefix),
        consent=Consent(default="grant"),
    )
    missing = by_name(await examine(settings))["topics"]
    assert not missing.ok
    assert missing.advice == "run `marquee topics apply`"
    await topics.apply(settings)
    findings = await examine(settings)
    assert all(finding.ok for finding in findings), findings
    assert "Valkey" in by_name(findings)["redis"].detail


async def test_a_paused_partition_is_a_finding_until_it_is_released(valkey: Valkey, topic_prefix: str) -> None:
    settings = Settings(
        kafka=Kafka(bootstrap=f"127.0.0.1:{free_port()}"), redis=Redis(url=valkey.url, prefix=topic_prefix)
    )
    third = Source(settings.topics.name("events"), 3)
    mark = PartitionMark(511, (3, *[0] * 8, 509), BadRun(512, 509, "malformed", paused=True))
    with redis.Redis.from_url(valkey.url) as client:
        client.set(f"{topic_prefix}:mark:{third.topic}:3", mark.to_bytes(), ex=60)
    finding = by_name(await examine(settings))["dead letters"]
    assert not finding.ok
    for word in (f"{third.topic}/3", "offset 512", "509 of the last 512", "malformed", "marquee dlq release"):
        assert word in finding.detail
    assert await asyncio.to_thread(release, settings, [2]) == {}
    assert await asyncio.to_thread(release, settings) == {third: mark}
    assert by_name(await examine(settings))["dead letters"].ok
    assert await asyncio.to_thread(release, settings) == {}


@pytest.mark.timeout(20)
async def test_servers_that_are_away_are_findings_not_errors() -> None:
    settings = Settings(
        kafka=Kafka(bootstrap=f"127.0.0.1:{free_port()}"), redis=Redis(url=f"redis://127.0.0.1:{free_port()}/0")
    )
    findings = by_name(await examine(settings))
    assert [name for name, finding in findings.items() if not finding.ok] == [
        "consent",
        "broker",
        "topics",
        "redis",
        "dead letters",
        "producers",
        "ranker",
    ]
    assert "redis.url" in findings["redis"].advice
    assert "kafka.bootstrap" in findings["broker"].advice
    for name in ("broker", "topics", "producers", "ranker"):
        assert findings[name].detail.startswith(f"no broker answers at {settings.kafka.bootstrap}; is it running"), name


class Elsewhere(Broker):
    """A broker that tells its clients another address."""

    told = ""

    def command(self) -> list[str]:
        return [*super().command()[:-1], f"tcp://{self.told}"]

    def answers(self) -> bool:
        return exchange(self.port, b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\0\0") != b""  # ApiVersions


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("told", "why"),
    [("127.0.0.1:1", "Connect call failed"), ("broker.invalid:9092", "Name or service not known"), ("", "no answer")],
)
async def test_an_address_that_nobody_reaches_is_named_by_whoever_asks_the_broker(told: str, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = Elsewhere()
        broker.told = told or f"127.0.0.1:{silent.getsockname()[1]}"
        with broker:
            settings = Settings(kafka=Kafka(bootstrap=broker.bootstrap, request_timeout_s=10))
            finding = by_name(await examine(settings))["broker"]
            assert not finding.ok
            assert f"{broker.bootstrap} answers and sends its clients to {broker.told} ({why}" in finding.detail
            for ask in (topics.plan, topics.check):
                with pytest.raises(KafkaConnectionError, match=f"sends its clients to {broker.told}"):
                    await ask(settings)


async def test_redis_7_is_recognised(redis7: Valkey) -> None:
    settings = Settings(kafka=Kafka(bootstrap=f"127.0.0.1:{free_port()}"), redis=Redis(url=redis7.url))
    assert "Redis 7" in by_name(await examine(settings))["redis"].detail


def test_exactly_the_rights_that_are_listed_are_enough(valkey: Valkey, topic_prefix: str) -> None:
    """And a store's whole life goes by with them: claim, load, save, read, forget."""
    said = CliRunner().invoke(app, ["doctor", "--acl"], env={"MARQUEE_REDIS__PREFIX": topic_prefix})
    rule = said.stdout.strip().replace(">PASSWORD", ">pw").replace("SETUSER marquee", f"SETUSER {topic_prefix}")
    with redis.Redis.from_url(valkey.url) as owner:
        assert owner.execute_command(*rule.split()) == b"OK"
        owner.script_flush()
    settings = Settings(redis=Redis(url=valkey.url, prefix=topic_prefix, username=topic_prefix, password="pw"))  # type: ignore[arg-type]
    store, source = user_store(settings), Source("events", 0)
    assert store.rehearse()["server_name"] == "valkey"
    store.claim([source])
    slates = {"u": b"slate"}
    saving.save_slates(store, store.load(["u"], [source]), slates, 60, width=settings.learner.dimensions)
    assert store.latest_slate("u") == b"slate"
    assert store.read(["u"]).states.consent_U.tolist() == [0]
    assert store.marks([source])[source].offset == -1
    assert store.forget("u") == 1
    store.close()
    with redis.Redis.from_url(valkey.url) as owner:
        denied = [entry for entry in owner.acl_log() if entry["username"] == topic_prefix]
        owner.acl_deluser(topic_prefix)
    assert denied == []


async def test_redis_that_refuses_is_told_by_what_it_would_need(valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as owner:
        owner.acl_setuser("reads", enabled=True, reset=True, nopass=True, keys=["*"], commands=["+@read"])
        away = Kafka(bootstrap=f"127.0.0.1:{free_port()}")
        settings = Settings(kafka=away, redis=Redis(url=valkey.url, username="reads", password="x"))  # type: ignore[arg-type]
        finding = by_name(await examine(settings))["redis"]
        owner.acl_deluser("reads")
    assert not finding.ok
    assert finding.detail.startswith(f"StoreRefused: Redis at 127.0.0.1:{valkey.port}: redis.username may not")


def test_redis_that_tells_nothing_of_itself_is_good_enough() -> None:
    assert judge_redis({}, policy="unknown").ok
