"""Every example runs, and says what it promises."""

import asyncio
import importlib.util
import json
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from embeddings.events import Fate, Source
from streams.settings import Settings
from streams.worker.stores import user_store

EXAMPLES = Path(__file__).parent.parent / "examples"
PAGE = (EXAMPLES.parent / "docs" / "http.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```sh\n(.*?)```\n\n```json\n(.*?)```", PAGE, re.DOTALL)


def curled(block: str, wanted: str, port: int) -> tuple[Any, Any]:
    """What a command of the page is answered, and what the page says."""
    command = block.replace("localhost:6066", f"127.0.0.1:{port}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=30)
    return json.loads(done.stdout), json.loads(wanted)


def is_like(answer: Any, wanted: Any) -> bool:
    """Whether an answer has what the page shows of it; names of slates and their items are others each time."""
    if isinstance(wanted, dict):
        return wanted.keys() <= answer.keys() and all(is_like(answer[key], wanted[key]) for key in wanted)
    return wanted in ("…", ["…"]) or answer == wanted


def until(holds: Callable[[], bool], timeout_s: float = 60) -> bool:
    """Whether it comes to hold: what was accepted is folded a moment later."""
    give_up = time.monotonic() + timeout_s
    while not (held := holds()) and time.monotonic() < give_up:
        time.sleep(0.1)
    return held


def fates(settings: Settings) -> list[int]:
    """What became of all events, as it stands in Redis."""
    topic, partitions = settings.topics.name("events"), settings.topics.partitions
    with closing(user_store(settings)) as store:
        marks = store.marks([Source(topic, partition) for partition in range(partitions)])
    return [sum(mark.totals[fate] for mark in marks.values()) for fate in Fate]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_event_is_answered_with_unseen_items() -> None:
    titles = example("e01_one_event").main()
    assert titles
    assert not {"Film 1", "Film 2", "Film 3"} & set(titles)


@pytest.mark.slow
def test_a_log_of_ones_own_is_measured_beside_its_yardsticks(tmp_path: Path) -> None:
    told = example("e04_your_own_log")
    found = told.main(told.make_up(tmp_path / "log.csv"))
    assert found["marquee"].events == 600
    assert found["marquee"].recall_10 > 3 * found["popularity"].recall_10


@pytest.mark.embedded
def test_an_event_published_a_slate_and_an_ad_asked_for_are_answered() -> None:
    from streams.lab.local_stack import Stack

    with Stack() as stack:
        stack.wait_until_ready()
        slate = asyncio.run(asyncio.wait_for(example("e02_publish_and_read").main(stack.broker.bootstrap), 30))
        assert slate["user_id"] == "ann"
        assert "m1" not in {item["item_id"] for item in slate["items"]}
        answer = asyncio.run(asyncio.wait_for(example("e03_ask").main(stack.broker.bootstrap), 30))
        assert {item["item_id"] for item in answer["items"]} == {"m3"}
        ad = asyncio.run(asyncio.wait_for(example("e05_ask_for_an_ad").main(stack.broker.bootstrap), 40))
        assert (ad["campaign_id"], ad["line_item_id"], ad["price_micros"]) == ("spring", "fares", 1_500)
        assert len(COMMANDS) == 6
        for block, wanted in [*COMMANDS, *COMMANDS]:
            assert until(lambda: is_like(*curled(block, wanted, stack.http_port))), block  # noqa: B023
        assert until(lambda: fates(stack.settings)[Fate.duplicate] == 2), "what has a name counts once"
