"""Which topics there are, and making the broker have them: `plan` says what is missing or different, `apply` creates.

A second `apply` changes nothing. What differs is reported, never altered: fewer replicas or a shorter retention lose
data, and more partitions move users to other workers; a person decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.kafka_admin import admin_client, create_topics
from streams.contract.records import TopicSpec, topic_specs
from streams.settings import Settings, TopicName

BY_USER: tuple[TopicName, ...] = ("events", "requests", "slates", "ads", "traces", "observations")
"""Topics with equal partition counts, so that `range` assignment gives one worker the same number of each."""


class TopicsUnfit(Exception):
    """A topic is missing, or topics keyed by user differ in partitions. The process ends before it consumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A topic as the broker has it; `config` holds what the broker reports of it."""

    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Something about an existing topic that differs from the settings."""

    topic: str
    what: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.what} is {self.found}, settings say {self.wanted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `apply` would create, what it leaves alone although it differs, and what is as it should be."""

    create: tuple[TopicSpec, ...]
    drift: tuple[Drift, ...]
    unchanged: tuple[str, ...]


def compare(specs: Sequence[TopicSpec], found: Mapping[str, Found]) -> Plan:
    """What it takes to get from `found` (by name) to `specs`. A setting the broker does not report is not compared."""
    drifts = {spec.topic: _drifts(spec, found[spec.topic]) for spec in specs if spec.topic in found}
    return Plan(
        create=tuple(spec for spec in specs if spec.topic not in found),
        drift=tuple(drift for several in drifts.values() for drift in several),
        unchanged=tuple(name for name, several in drifts.items() if not several),
    )


def unfit(settings: Settings, found: Mapping[str, Found]) -> list[str]:
    """Why a worker may not consume from these topics, or answer on them; empty when it may."""
    specs, answers = topic_specs(settings), settings.slates.reply_topics
    missing = [f"{s.topic} is missing: run `marquee topics apply`" for s in specs if s.topic not in found]
    by_user = [settings.topics.name(topic) for topic in BY_USER]
    counts = {name: found[name].partitions for name in by_user if name in found}
    wrong = [
        f"{name} has {count} partitions, topics.partitions is {settings.topics.partitions}: topics keyed by user must"
        " have equal counts, or a worker answers for users it does not own"
        for name, count in counts.items()
        if count != settings.topics.partitions
    ]
    nowhere = [f"{name} is missing: slates.reply_topics names it" for name in answers if name not in found]
    return missing + nowhere + wrong + ([_remedy(counts)] if wrong else [])


def _remedy(counts: Mapping[str, int]) -> str:
    """What to do about partition counts that are not the setting's: none can become smaller."""
    most = max(counts.values())
    fits = 1 << (most - 1).bit_length()
    if set(counts.values()) == {fits}:
        return f"set topics.partitions (MARQUEE_TOPICS__PARTITIONS) to {fits}, as the topics have it"
    less = ", ".join(name for name, count in counts.items() if count < fits)
    how = f"kafka-topics --alter --partitions {fits}, while no worker runs"
    return f"grow to {fits} partitions: {less} ({how}); set topics.partitions to {fits}"


async def plan(settings: Settings) -> Plan:
    """Compare the settings with the broker; changes nothing."""
    return (await review(settings))[0]


async def review(settings: Settings) -> tuple[Plan, list[str]]:
    """The plan, and why a worker may not start with the topics as they are; changes nothing."""
    async with admin_client(**settings.kafka.client_options()) as admin:
        found = await _found(admin)
    return compare(topic_specs(settings), found), unfit(settings, found)


async def apply(settings: Settings) -> Plan:
    """Create what is missing and return the plan that was carried out.

    Raises:
        TopicsRefused: the broker would not create one of them.
    """
    async with admin_client(**settings.kafka.client_options()) as admin:
        todo = compare(topic_specs(settings), await _found(admin))
        if todo.create:
            new = [NewTopic(t.topic, t.partitions, t.replication, topic_configs=dict(t.config)) for t in todo.create]
            await create_topics(admin, new)
        return todo


async def check(settings: Settings) -> None:
    """Make sure that a worker may start; with `topics.create` missing topics are created first.

    Raises:
        TopicsUnfit: topics are missing or partition counts differ. Nothing was consumed.
        TopicsRefused: the broker would not create one of them.
    """
    if settings.topics.create:
        await apply(settings)
    async with admin_client(**settings.kafka.client_options()) as admin:
        reasons = unfit(settings, await _found(admin, configured=False))
    if reasons:
        raise TopicsUnfit("\n".join(reasons))


def _drifts(spec: TopicSpec, found: Found) -> list[Drift]:
    want = {"partitions": str(spec.partitions), "replication": str(spec.replication), **spec.config}
    have = {"partitions": str(found.partitions), "replication": str(found.replication), **found.config}
    return [
        Drift(topic=spec.topic, what=what, wanted=value, found=have[what])
        for what, value in want.items()
        if what in have and have[what] != value
    ]


async def _found(admin: AIOKafkaAdminClient, *, configured: bool = True) -> dict[str, Found]:
    """All topics of the broker by name.

    Asks for all of them: asking for one by name creates it on brokers that create topics on demand.
    """
    described = {topic["topic"]: topic for topic in await admin.describe_topics() if not topic["is_internal"]}
    config = await _config(admin, list(described)) if configured else {}
    return {
        name: Found(
            partitions=len(topic["partitions"]),
            replication=min((len(p["replicas"]) for p in topic["partitions"]), default=0),
            config=config.get(name, {}),
        )
        for name, topic in described.items()
    }


async def _config(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    replies = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    resources = [resource for reply in replies for resource in reply.resources]
    return {name: {entry[0]: entry[1] for entry in entries} for _code, _message, _type, name, entries in resources}
