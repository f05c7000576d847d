"""The rights that an installation needs at its brokers, as commands for `kafka-acls.sh`: no more than is used.

Nothing is transactional, so there are no rights to transactional ids. Brokers before 2.8 want idempotent producers to
have `--cluster --operation IdempotentWrite` as well.
"""

import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from streams.commands.console import Config, Json, err, finish, load

if TYPE_CHECKING:
    from streams.settings import Settings, TopicName

_TOOL = "kafka-acls.sh"


class Right(NamedTuple):
    """What a principal may do with topics or groups of these names."""

    principal: str
    operations: tuple[str, ...]
    resource: str
    names: tuple[str, ...]

    def command(self, bootstrap: str) -> str:
        """As `kafka-acls.sh` takes it."""
        words = [_TOOL, "--bootstrap-server", bootstrap, "--add", "--allow-principal", self.principal]
        words += [word for operation in self.operations for word in ("--operation", operation)]
        words += [word for name in self.names for word in (f"--{self.resource}", name)]
        return shlex.join(words)


class Principals(NamedTuple):
    """Who is who at the brokers."""

    worker: str
    learner: str
    producer: str
    consumer: str
    consumer_group: str
    operator: str


def rights(settings: "Settings", of: Principals) -> list[Right]:
    """All rights, of topics by the names that the settings give them.

    Workers and learners see every topic, because they refuse to start where one is missing, and they read what the
    other's group reads, because whoever lives tells of the lag of whoever is away.
    """
    worker, learner, operator = _worker(settings, of.worker), _learner(settings, of.learner), _operator(settings, of)
    return [*worker, *learner, *operator, *_producer(settings, of.producer), *_consumer(settings, of)]


def _worker(settings: "Settings", principal: str) -> Iterator[Right]:
    from streams.process.metrics import GROUPS, WORKER_CONTROL, WORKER_LANES

    letters = (*WORKER_LANES, *WORKER_CONTROL)
    reads: tuple[TopicName, ...] = (*GROUPS, *WORKER_CONTROL, "ads", "ad_stats")  # a lost ledger is made anew of these
    writes: tuple[TopicName, ...] = ("events", "slates", "ads", "traces", "observations", "ad_stats")
    yield from _process(settings, principal, "serving", "learner", reads=reads, writes=writes, letters=letters)
    if settings.slates.reply_topics:
        yield Right(principal, ("Write",), "topic", tuple(settings.slates.reply_topics))


def _learner(settings: "Settings", principal: str) -> Iterator[Right]:
    from streams.process.metrics import GROUPS, LEARNER_CONTROL, LEARNER_LANES

    reads: tuple[TopicName, ...] = (*GROUPS, *LEARNER_CONTROL)
    writes: tuple[TopicName, ...] = ("counters", "models")
    yield from _process(settings, principal, "learner", "serving", reads=reads, writes=writes, letters=LEARNER_LANES)


def _process(
    settings: "Settings",
    principal: str,
    group: str,
    other: str,
    *,
    reads: tuple["TopicName", ...],
    writes: tuple["TopicName", ...],
    letters: tuple["TopicName", ...],
) -> Iterator[Right]:
    """A member of a group, which reads the end of its dead letters before it writes any."""
    from streams.contract.records import topic_specs

    topics, prefix = settings.topics, settings.kafka.group_prefix
    dead = [topics.dead_letters(name) for name in letters]
    needed = (*(spec.topic for spec in topic_specs(settings)), *settings.slates.reply_topics)
    yield Right(principal, ("Describe",), "topic", needed)
    yield Right(principal, ("Read",), "topic", (*map(topics.name, reads), *dead))
    yield Right(principal, ("Write",), "topic", (*map(topics.name, writes), *dead))
    yield Right(principal, ("Read",), "group", (f"{prefix}.{group}",))
    yield Right(principal, ("Describe",), "group", (f"{prefix}.{other}",))
    if settings.topics.create:
        yield Right(principal, ("Create", "DescribeConfigs"), "topic", tuple(s.topic for s in topic_specs(settings)))


def _operator(settings: "Settings", of: Principals) -> Iterator[Right]:
    """Whoever runs `marquee topics`, `dlq`, `ads`, `snapshot` and `doctor`."""
    from streams.contract.records import topic_specs

    every = tuple(spec.topic for spec in topic_specs(settings))
    yield Right(of.operator, ("Read", "Write", "Create", "DescribeConfigs"), "topic", every)
    yield Right(of.operator, ("Read",), "group", (f"{settings.kafka.group_prefix}.dlq",))


def _producer(settings: "Settings", principal: str) -> Iterator[Right]:
    from streams.contract.unread import KINDS

    yield Right(principal, ("Write",), "topic", tuple(settings.topics.name(name) for name in KINDS))


def _consumer(settings: "Settings", of: Principals) -> Iterator[Right]:
    names: tuple[TopicName, ...] = ("slates", "ads", "ad_stats", "traces")
    read = (*map(settings.topics.name, names), *settings.slates.reply_topics)
    yield Right(of.consumer, ("Read",), "topic", read)
    yield Right(of.consumer, ("Read",), "group", (of.consumer_group,))


def acl(
    worker: Annotated[str, typer.Option(help="Who workers are; User:<kafka.sasl_username> without.")] = "",
    learner: Annotated[str, typer.Option(help="Who learners are; as workers without.")] = "",
    producer: Annotated[str, typer.Option(help="Who writes events, requests, catalogue, campaigns.")] = "User:producer",
    consumer: Annotated[str, typer.Option(help="Who reads slates, ads, figures, traces.")] = "User:consumer",
    consumer_group: Annotated[str, typer.Option(help="The group in which they are read.")] = "consumer",
    operator: Annotated[str, typer.Option(help="Who runs `marquee topics apply`, `dlq`, `ads`.")] = "User:operator",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print the rights at the brokers that each principal needs, as commands for kafka-acls.sh; asks no broker."""
    settings = load(config)
    ours = worker or f"User:{settings.kafka.sasl_username or 'marquee'}"
    of = Principals(ours, learner or ours, producer, consumer, consumer_group, operator)
    found = rights(settings, of)
    err.print("run these with --command-config and an administrator's login; nothing is transactional", markup=False)
    if not as_json:
        sys.stdout.writelines(right.command(settings.kafka.bootstrap) + "\n" for right in found)
    finish({"rights": [right._asdict() for right in found]}, as_json)
