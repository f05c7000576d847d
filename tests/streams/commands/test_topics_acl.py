import json
from typing import Any

import pytest

from streams.commands.cli import main
from streams.commands.topics_acl import Principals, Right, rights
from streams.contract.records import topic_specs
from streams.settings import Settings
from streams.worker.worker import Worker
from tests.streams.builders import small

OF = Principals("User:w", "User:l", "User:p", "User:c", "readers", "User:o")


def may(settings: Settings, principal: str, operation: str, resource: str = "topic") -> set[str]:
    found = [r for r in rights(settings, OF) if r.principal == principal and r.resource == resource]
    return {name for right in found if operation in right.operations for name in right.names}


def test_a_worker_may_read_all_that_it_reads_whatever_it_is_called() -> None:
    named = {"topics": {"prefix": "team", "events": "klicks"}, "kafka": {"group_prefix": "g"}}
    worker = Worker(small(**named))
    read = may(worker.settings, "User:w", "Read")
    assert {"klicks", "team.requests.v1", "klicks.dlq"} <= read
    assert set(worker.control.handlers) <= read
    assert {topic for topics in worker.unowned.groups.values() for topic in topics} <= read
    letters = {each.topic for each in worker.control_topics.letters.topics.values()}
    letters |= {worker.events.letters.topic, worker.requests.letters.topic}
    assert letters <= read & may(worker.settings, "User:w", "Write")
    assert may(worker.settings, "User:w", "Read", "group") == {"g.serving"}
    assert set(worker.unowned.groups) == {"g.serving", "g.learner"}
    assert may(worker.settings, "User:w", "Describe") == {spec.topic for spec in topic_specs(worker.settings)}


def test_nobody_may_more_than_they_are_for() -> None:
    settings = small()
    ours = {"marquee.slates.v1", "marquee.counters.v1", "marquee.models.v1", "marquee.ad-stats.v1"}
    for principal in ("User:p", "User:c"):
        assert not ours & may(settings, principal, "Write")
    assert may(settings, "User:l", "Write") & ours == {"marquee.counters.v1", "marquee.models.v1"}
    assert not may(settings, "User:c", "Read") & {"marquee.events.v1", "marquee.requests.v1"}
    operations = {o for right in rights(settings, OF) for o in right.operations if right.principal != "User:o"}
    assert operations == {"Read", "Write", "Describe"}
    assert not [right for right in rights(settings, OF) if right.resource not in ("topic", "group")]


def test_what_settings_ask_for_besides_is_granted() -> None:
    settings = small(topics={"create": True}, slates={"reply_topics": ("mine",)})
    assert "marquee.events.v1" in may(settings, "User:w", "Create") & may(settings, "User:l", "Create")
    assert "mine" in may(settings, "User:w", "Write") & may(settings, "User:c", "Read")
    assert "mine" in may(settings, "User:l", "Describe"), "without it a learner does not start"


def test_a_right_is_a_command_of_kafkas_tool() -> None:
    said = Right("User:CN=my worker", ("Read", "Write"), "topic", ("a", "b")).command("k:9092")
    assert said == (
        "kafka-acls.sh --bootstrap-server k:9092 --add --allow-principal 'User:CN=my worker'"
        " --operation Read --operation Write --topic a --topic b"
    )


def test_rights_are_of_who_logs_in(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MARQUEE_KAFKA__SASL_USERNAME", "recs")
    monkeypatch.setenv("MARQUEE_TOPICS__SLATES", "shelves")
    said = _run(capsys, "topics", "acl", "--consumer", "User:shop", "--consumer-group", "shop")
    lines = said.splitlines()
    assert all(line.startswith("kafka-acls.sh --bootstrap-server localhost:9092 --add ") for line in lines)
    assert any("--allow-principal User:recs --operation Write" in line and "--topic shelves" in line for line in lines)
    assert lines[-1].endswith("--allow-principal User:shop --operation Read --group shop")
    found: list[dict[str, Any]] = json.loads(_run(capsys, "topics", "acl", "--json"))["rights"]
    assert len(found) == len(lines)


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert not ended.value.code
    return capsys.readouterr().out
