"""What tools of other languages say of the contract: AsyncAPI's own parser, and Ajv, a validator of JSON Schema."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy import npm
from streams.contract import documents
from streams.contract.schemas import RECORD_OF
from tests.streams.contract.mutants import accepted, golden, mutants, why_they_differ

pytestmark = pytest.mark.slow

PARSE = """
const { Parser } = require('@asyncapi/parser');
(async () => {
  for (const file of process.argv.slice(1)) {
    const { document, diagnostics } = await new Parser().parse(require('fs').readFileSync(file, 'utf8'));
    const channels = document ? document.channels().all() : [];
    console.log(JSON.stringify({
      channels: channels.length,
      messages: channels.flatMap((channel) => channel.messages().all()).length,
      complaints: diagnostics.filter((d) => d.severity < 2).map((d) => `${d.path.join('/')}: ${d.message}`),
    }));
  }
})();
"""
VALIDATE = """
const Ajv = require('ajv/dist/2020');
const ajv = new Ajv({ strict: true, strictTypes: false, strictRequired: false, allErrors: true });
const given = JSON.parse(require('fs').readFileSync(process.argv[1], 'utf8'));
console.log(JSON.stringify(given.map(([schema, ...kinds]) => {
  const validate = ajv.compile(schema);
  return kinds.map((values) => values.map((value) => validate(value)));
})));
"""


@pytest.fixture(scope="module")
def verdicts(npm_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the parser says of the document, and of one with three things wrong."""
    made = json.loads((documents.HERE / "asyncapi.json").read_text())
    made["operations"]["send_slates"]["action"] = "tell"
    made["components"]["schemas"]["Event"]["properties"]["slot"] = {"type": "whole"}
    made["channels"]["ads"]["bindings"]["kafka"]["partitions"] = 0
    wrong = tmp_path_factory.mktemp("asyncapi") / "wrong.json"
    wrong.write_text(json.dumps(made))
    done = npm.run(PARSE, str(documents.HERE / "asyncapi.json"), str(wrong))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_document_is_valid_to_asyncapis_parser(verdicts: list[dict[str, Any]]) -> None:
    made, said = json.loads((documents.HERE / "asyncapi.json").read_text()), verdicts[0]
    assert said["complaints"] == []
    assert said["channels"] == len(made["channels"])
    assert said["messages"] == sum(len(channel["messages"]) for channel in made["channels"].values())


def test_asyncapis_parser_refuses_what_is_wrong_in_a_document(verdicts: list[dict[str, Any]]) -> None:
    complaints = " ".join(verdicts[1]["complaints"])
    assert "operations/send_slates/action" in complaints
    assert "components/schemas/Event" in complaints
    assert "channels/ads/bindings/kafka" in complaints


def test_ajv_takes_what_runs_brought_and_refuses_the_mutants_that_we_refuse(npm_packages: Path, tmp_path: Path) -> None:
    examples, given = documents.examples_in(documents.HERE), []
    for topic in RECORD_OF:
        schema = json.loads((documents.HERE / "schemas" / f"{topic.replace('_', '-')}.v1.json").read_text())
        right = [golden(topic), *(example.payload for example in examples.get(topic, ()))]
        wrong = [
            mutant
            for at, odd, mutant in mutants(golden(topic))
            if not accepted(topic, mutant) and why_they_differ(topic, at, odd, by_schema=True) is None
        ]
        given.append((schema, right, wrong))
    (tmp_path / "given.json").write_text(json.dumps(given))
    done = npm.run(VALIDATE, str(tmp_path / "given.json"))
    assert done.returncode == 0, done.stderr
    for topic, (right, wrong) in zip(RECORD_OF, json.loads(done.stdout), strict=True):
        assert all(right), topic
        assert not any(wrong), topic
        assert len(wrong) > 50
