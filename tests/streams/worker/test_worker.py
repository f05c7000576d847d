import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from streams.serving import rehearsal
from streams.settings import Settings
from streams.worker import worker
from streams.worker.stores import user_store
from tests.streams.builders import small
from tests.streams.controlled import a_controlled_worker


def test_credentials_reach_the_store_and_nothing_that_is_printed() -> None:
    redis = {"url": "rediss://example.test:7000/2", "username": "mar quee", "password": "p@ss/word"}
    settings = Settings.model_validate({"redis": redis})
    assert "p@ss" not in repr(settings)
    store = user_store(settings)
    assert "p@ss" not in repr(store)


def test_rows_of_items_that_nobody_knows_are_taken_back_while_a_worker_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    beside: list[Callable[[], Any]] = []
    monkeypatch.setattr(worker.asyncio, "run", lambda check: check.close())
    monkeypatch.setattr(worker, "_refuse_useless_store", lambda settings: None)
    monkeypatch.setattr(worker.Worker, "member", lambda self: MagicMock())
    monkeypatch.setattr(worker, "run_apps", lambda apps, **more: beside.extend(more["beside"]))
    worker.run_worker(small(learner={"max_items": 32_000}))
    (turn_over,) = [call for call in beside if getattr(call, "__name__", "") == "turn_over"]
    running: worker.Worker = turn_over.__self__  # type: ignore[attr-defined]
    assert running.serving.turnover.strangers == 2_000


async def test_it_takes_partitions_and_answers_over_http_once_it_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    running, threads = a_controlled_worker(), list[str]()
    monkeypatch.setattr(rehearsal, "answer", lambda *_: threads.append(threading.current_thread().name))
    api = running.api()
    running.control.caught_up.set()
    running.snapshots._settled.set()
    assert not api.started()
    await running.is_warm()
    assert threads == ["rehearsal"]
    assert api.started()


@pytest.mark.slow
def test_a_worker_serves_without_torch() -> None:
    """It takes as long to import as everything else together, and twice the memory."""
    served = (
        "import streams.worker.worker, sys; from ranking.ranker import Ranker; Ranker.untaught(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", served], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
