import pytest

from deploy.embedded import Broker
from deploy.kafka import KafkaServer
from deploy.kafka_admin import TopicsRefused
from streams.contract.records import topic_specs
from streams.settings import Kafka, Settings, Topics
from streams.transport import topics

BROKERS = [
    pytest.param("embedded_broker", marks=pytest.mark.embedded),
    pytest.param("kafka", marks=pytest.mark.kafka),
]


@pytest.fixture(params=BROKERS)
def settings(request: pytest.FixtureRequest, topic_prefix: str) -> Settings:
    broker: Broker | KafkaServer = request.getfixturevalue(request.param)
    return Settings(kafka=Kafka(bootstrap=broker.bootstrap), topics=Topics(prefix=topic_prefix, partitions=4))


def changed(settings: Settings, **update: object) -> Settings:
    return settings.model_copy(update={"topics": settings.topics.model_copy(update=update)})


async def test_second_apply_changes_nothing(settings: Settings) -> None:
    assert (await topics.plan(settings)).create == tuple(topic_specs(settings))
    await topics.apply(settings)
    again = await topics.apply(settings)
    assert again.create == ()
    assert again.drift == ()
    assert set(again.unchanged) == {spec.topic for spec in topic_specs(settings)}
    await topics.check(settings)


async def test_drift_is_reported_and_not_altered(settings: Settings) -> None:
    await topics.apply(settings)
    other = changed(settings, partitions=8)
    for _ in range(2):
        drift = (await topics.apply(other)).drift
        assert {(d.topic, d.what, d.wanted, d.found) for d in drift} == {
            (settings.topics.name(topic), "partitions", "8", "4") for topic in topics.BY_USER
        }
    assert (await topics.plan(settings)).drift == ()


async def test_longer_retention_is_drift(kafka: KafkaServer, topic_prefix: str) -> None:
    before = Settings(kafka=Kafka(bootstrap=kafka.bootstrap), topics=Topics(prefix=topic_prefix, retention_h=1))
    await topics.apply(before)
    drift = (await topics.plan(changed(before, retention_h=2))).drift
    events = next(d for d in drift if d.topic == before.topics.name("events"))
    assert str(events) == f"{topic_prefix}.events.v1: retention.ms is 3600000, settings say 7200000"


async def test_worker_may_not_start_without_its_topics(settings: Settings) -> None:
    with pytest.raises(topics.TopicsUnfit, match="run `marquee topics apply`"):
        await topics.check(settings)


async def test_missing_topics_are_created_at_start_where_settings_allow_it(settings: Settings) -> None:
    await topics.check(changed(settings, create=True))
    assert (await topics.plan(settings)).create == ()


async def test_unequal_partition_counts_are_refused(settings: Settings, request: pytest.FixtureRequest) -> None:
    broker: Broker | KafkaServer = request.getfixturevalue(request.node.callspec.params["settings"])
    broker.create_topic(settings.topics.name("requests"), 2)
    await topics.apply(settings)
    with pytest.raises(topics.TopicsUnfit, match=r"requests\.v1 has 2 partitions, topics\.partitions is 4"):
        await topics.check(settings)


async def test_refusal_by_the_broker_says_which_topic(kafka: KafkaServer, topic_prefix: str) -> None:
    settings = Settings(kafka=Kafka(bootstrap=kafka.bootstrap), topics=Topics(prefix=topic_prefix, replication=3))
    with pytest.raises(TopicsRefused, match=rf"{topic_prefix}\.events\.v1: .*\(code 38\)"):
        await topics.apply(settings)


@pytest.mark.parametrize(
    ("events", "others", "remedy"),
    [
        (16, 16, "set topics.partitions (MARQUEE_TOPICS__PARTITIONS) to 16, as the topics have it"),
        (12, 12, "grow to 16 partitions: marquee.events.v1, marquee.requests.v1, "),
        (12, 8, "grow to 16 partitions: marquee.events.v1, marquee.requests.v1, "),
        (16, 8, "grow to 16 partitions: marquee.requests.v1, "),
        (12, None, "grow to 16 partitions: marquee.events.v1 (kafka-topics --alter --partitions 16, while no"),
        (8, 8, ""),
    ],
)
def test_whoever_may_not_start_because_of_partitions_is_told_what_to_do(
    events: int, others: int | None, remedy: str
) -> None:
    settings = Settings(topics=Topics(partitions=8))
    found = {
        spec.topic: topics.Found(partitions=count, replication=1, config={})
        for spec in topic_specs(settings)
        if (count := events if spec.topic == "marquee.events.v1" else others) is not None
    }
    reasons = topics.unfit(settings, found)
    assert (reasons[-1] if reasons else "").startswith(remedy)
    assert bool(reasons) == bool(remedy)


def test_names_come_from_settings() -> None:
    settings = Settings(topics=Topics(prefix="acme", slates="acme.homepage"))
    names = {spec.topic for spec in topic_specs(settings)}
    assert {"acme.events.v1", "acme.homepage", "acme.events.v1.dlq"} <= names


def test_every_topic_with_a_key_per_user_has_the_same_partitions() -> None:
    settings = Settings(topics=Topics(partitions=16))
    by_name = {spec.topic: spec for spec in topic_specs(settings)}
    assert {by_name[settings.topics.name(topic)].partitions for topic in topics.BY_USER} == {16}


def test_setting_that_the_broker_does_not_report_is_no_drift() -> None:
    wanted = topic_specs(Settings())
    found = {s.topic: topics.Found(partitions=s.partitions, replication=s.replication, config={}) for s in wanted}
    assert topics.compare(wanted, found).drift == ()
