from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka import KafkaServer
from tests.connected.batching_lab import Lab


@pytest.fixture
def lab(kafka: KafkaServer, topic_prefix: str, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(kafka, topic_prefix, tmp_path)
    yield lab
    for worker in lab.workers:
        worker.child.kill()
