"""The committed files are what the code says, break nothing that was released, and show records as they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from streams.commands.cli import main
from streams.contract import asyncapi, documents
from streams.contract.deadletters import Code
from streams.contract.records import encode, topic_specs
from streams.contract.schema_rules import AD_TYPES, EVENT_TYPES
from streams.contract.schemas import RECORD_OF, document
from streams.settings import TOPIC_NAMES, Kafka, Settings, TopicName, Topics
from tests.streams.contract.mutants import mutants

EXAMPLES = documents.examples_in(documents.HERE)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((documents.HERE / "asyncapi.json").read_text())
    return whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the committed files."""
    return Path(shutil.copytree(documents.HERE, tmp_path / "contract"))


def test_the_committed_files_are_what_the_code_says_and_break_nothing() -> None:
    assert documents.differing(documents.HERE, Settings()) == []
    assert documents.broken(documents.HERE) == []
    assert {file.name for file in (documents.HERE / "versions" / asyncapi.VERSION).glob("*")} == {
        f"{topic.replace('_', '-')}.v1.json" for topic in RECORD_OF
    }


def test_the_check_names_files_that_differ_and_versions_that_break(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "schemas" / "slates.v1.json").write_text("{}")
    (folder / "schemas" / "gone.v1.json").write_text("{}")
    released = folder / "versions" / "1.0.0" / "events.v1.json"
    released.write_text(released.read_text().replace('"slot":', '"place":'))
    with pytest.raises(SystemExit) as ended:
        main(["contract", "--check", "--out", str(folder), "--json"])
    assert ended.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["differing"] == ["schemas/gone.v1.json", "schemas/slates.v1.json"]
    assert said["broken"] == ["events 1.0.0: place: removed"]


def test_writing_mends_files_and_refuses_what_breaks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "schemas" / "slates.v1.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(["contract", "--out", str(folder)])
    assert ended.value.code == 0
    assert documents.differing(folder, Settings()) == []
    released = folder / "versions" / "1.0.0" / "ads.v1.json"
    released.write_text(released.read_text().replace('"filled":', '"sold":'))
    with pytest.raises(SystemExit) as ended:
        main(["contract", "--out", str(folder)])
    assert ended.value.code == 1
    assert "it takes a new topic, .v2" in capsys.readouterr().err


def test_a_released_version_is_kept_once_and_never_rewritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "VERSION", "9.0.0")
    assert documents.freeze(folder) == folder / "versions" / "9.0.0"
    assert documents.freeze(folder) is None
    assert documents.broken(folder) == []
    released = folder / "versions" / "9.0.0" / "ads.v1.json"
    released.write_text(released.read_text().replace('"filled":', '"sold":'))
    with pytest.raises(FileExistsError, match="raise VERSION"):
        documents.freeze(folder)


def test_channels_are_the_topics_that_are_made(made: dict[str, Any]) -> None:
    specs = {spec.topic: spec for spec in topic_specs(Settings())}
    channels = {channel["address"]: channel for channel in made["channels"].values()}
    assert channels.keys() == specs.keys()
    for topic, spec in specs.items():
        kafka = channels[topic]["bindings"]["kafka"]
        assert (kafka["partitions"], kafka["replicas"]) == (spec.partitions, spec.replication)
        said = {
            key: value if isinstance(value, list) else str(value) for key, value in kafka["topicConfiguration"].items()
        }
        assert said == spec.config | {"cleanup.policy": [spec.config["cleanup.policy"]]}


def test_names_and_partitions_are_those_of_the_settings() -> None:
    settings = Settings(topics=Topics(prefix="media", partitions=64, slates="answers"))
    channels = asyncapi.asyncapi(settings, {})["channels"]
    assert channels["slates"]["address"] == "answers"
    assert (channels["events"]["address"], channels["events_dlq"]["address"]) == (
        "media.events.v1",
        "media.events.v1.dlq",
    )
    assert channels["requests"]["bindings"]["kafka"]["partitions"] == 64


def test_marquee_receives_what_others_send_and_sends_the_rest(made: dict[str, Any]) -> None:
    operations = made["operations"]
    assert {name for name, said in operations.items() if said["action"] == "receive"} == {
        f"receive_{name}"
        for name in ("events", "requests", "catalog", "campaigns", "privacy", "observations", "counters", "models")
    }
    assert {"send_slates", "send_ads", "send_ad_stats", "send_traces", "send_events_dlq"} <= operations.keys()
    assert "send_events" not in operations
    assert operations["receive_requests"]["reply"]["channel"] == {"$ref": "#/channels/slates"}


def test_servers_are_every_way_in_which_a_broker_may_be_reached(made: dict[str, Any]) -> None:
    hints = Kafka.model_json_schema()["properties"]
    assert set(made["servers"]) == {protocol.lower() for protocol in hints["security_protocol"]["enum"]}
    assert made["servers"]["sasl_ssl"]["protocol"] == "kafka-secure"
    assert len(made["servers"]["sasl_ssl"]["security"]) == len(hints["sasl_mechanism"]["enum"])
    letter = made["components"]["messages"]["deadLetter"]["headers"]
    assert set(letter["properties"]["marquee.code"]["enum"]) == set(Code)


def test_every_message_of_the_contract_shows_a_record_of_a_run(made: dict[str, Any]) -> None:
    bare = {
        name
        for name, channel in made["channels"].items()
        for m in channel["messages"].values()
        if not m.get("examples")
    }
    assert bare == {"privacy", "observations"} | {name for name in made["channels"] if name.endswith("_dlq")}
    assert list(made["channels"]["events"]["messages"]) == list(EVENT_TYPES)


@pytest.mark.parametrize("topic", EXAMPLES)
def test_examples_are_valid_and_written_as_the_code_writes_them(topic: TopicName) -> None:
    validator = jsonschema_rs.validator_for(document(topic))
    for example in EXAMPLES[topic]:
        validator.validate(example.payload)
        value = msgspec.json.encode(example.payload)
        assert encode(msgspec.json.decode(value, type=RECORD_OF[topic])) == value
    assert set(EXAMPLES) == set(TOPIC_NAMES) - {"privacy", "observations"}


def test_a_message_of_one_type_is_whole_for_whoever_generates_code_from_it(made: dict[str, Any]) -> None:
    """Mutants are valid by a type's own schema where they are valid by the topic's, and are of that type."""
    topic = jsonschema_rs.validator_for(document("events"))
    for kind, message in made["channels"]["events"]["messages"].items():
        own = jsonschema_rs.validator_for({**message["payload"], "components": made["components"]})
        forms = [example["payload"] for example in message["examples"]]
        forms += [{**forms[0], "decision_id": "d1"}, {**forms[0], "ad": 1, "slate_id": "s1", "slot": 2}]
        for at, odd, mutant in (each for form in forms for each in mutants(form) if len(each[0]) == 1):
            assert own.is_valid(mutant) == (topic.is_valid(mutant) and mutant.get("type") == kind), (kind, at, odd)
        schema = made["components"]["schemas"][message["payload"]["$ref"].rpartition("/")[2]]
        titles = [form["title"] for form in schema.get("oneOf", [schema])]
        assert len(titles) == (3 if kind in AD_TYPES else 1)
        assert all("item_id" in form["properties"] for form in schema.get("oneOf", [schema])), titles


def test_headers_of_examples_are_those_that_their_messages_promise(made: dict[str, Any]) -> None:
    traits, seen = made["components"]["messageTraits"], 0
    for channel in made["channels"].values():
        for message in channel["messages"].values():
            for trait in message.get("traits", ()):
                validator = jsonschema_rs.validator_for(traits[trait["$ref"].rpartition("/")[2]]["headers"])
                for example in message.get("examples", ()):
                    validator.validate(example.get("headers", {}))
                    seen += "ce_id" in example.get("headers", {})
    assert seen > 10
    assert not jsonschema_rs.validator_for(traits["cloudEvent"]["headers"]).is_valid({"ce_id": "1"})


def test_examples_that_a_run_left_are_shown_in_what_is_written_there(folder: Path) -> None:
    ann = asyncapi.Example("play", "ann", {"ce_id": "1"}, {"type": "play"})
    documents.write_examples(folder, {"events": [ann]})
    assert documents.examples_in(folder) == {"events": [ann]}
    documents.write(folder, Settings())
    events = json.loads((folder / "asyncapi.json").read_text())["channels"]["events"]["messages"]
    assert events["play"]["examples"] == [{"name": "play", "headers": {"ce_id": "1"}, "payload": {"type": "play"}}]
    assert "examples" not in events["view"]
