import subprocess
import sys

import pytest

from streams.settings import Settings
from streams.worker.stores import user_store


def test_credentials_reach_the_store_and_nothing_that_is_printed() -> None:
    redis = {"url": "rediss://example.test:7000/2", "username": "mar quee", "password": "p@ss/word"}
    settings = Settings.model_validate({"redis": redis})
    assert "p@ss" not in repr(settings)
    store = user_store(settings)
    assert "p@ss" not in repr(store)


@pytest.mark.slow
def test_a_worker_serves_without_torch() -> None:
    """It takes as long to import as everything else together, and twice the memory."""
    served = (
        "import streams.worker.worker, sys; from ranking.ranker import Ranker; Ranker.untaught(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", served], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
