"""What a learner's checkpoints cost: bytes and seconds of an increment, beside those of a whole in the same run.

python -m benchmarks.checkpoints --items 100000

A learner of so many items, with 50 items held before each take and vectors of 64 numbers, learns Zipf traffic. A whole
is what every checkpoint was before there were increments. The pause is how long the learner does nothing else.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embeddings.events import CONSENT_ALL, Action, Source
from embeddings.svd import Factors
from ranking.features import COLUMNS
from streams.contract.observations import Observation
from streams.learning.checkpoints import Checkpoint, CheckpointFolder, Journal
from streams.learning.learner import Learner
from streams.settings import Learner as LearnerSettings
from streams.settings import Settings

HELD, ROWS, NOW = 50, 10_000, 1_750_000_000
HERE = Source("observations", 0)


def an_observation(item_R: NDArray[np.uint64], history_RH: NDArray[np.uint64], first: int) -> Observation:
    """Rows that each take an item, a thousandth of a second after the other, with their names and no examples."""
    rows = len(item_R)
    none = np.zeros((0, 1))
    return Observation(
        source=Source("events", 0),
        first=first,
        last=first + rows - 1,
        names={item: f"movie-{item:012d}" for item in item_R.tolist()},
        offset_R=np.arange(first, first + rows),
        user_R=np.zeros(rows, np.uint64),
        item_R=item_R,
        action_R=np.full(rows, Action.play, np.uint8),
        value_R=np.zeros(rows, np.float32),
        time_s_R=NOW + np.arange(first, first + rows) // 1_000,
        consent_R=np.full(rows, CONSENT_ALL, np.uint8),
        slate_R=np.zeros(rows, np.uint64),
        slot_R=np.full(rows, -1, np.int16),
        kind_R=np.zeros(rows, np.uint8),
        context_RC=np.random.default_rng(first).integers(1, 200, (rows, 5)).astype(np.uint16),
        take_T=np.arange(rows, dtype=np.int32),
        history_TH=history_RH,
        history_action_TH=np.zeros(history_RH.shape, np.uint8),
        history_time_s_TH=np.zeros(history_RH.shape, np.int64),
        example_E=np.zeros(0, np.int32),
        example_item_ES=none.astype(np.uint64),
        example_x_ESF=np.zeros((0, 1, COLUMNS), np.float16),
        log_q_ES=none.astype(np.float16),
        moment_E=np.zeros(0, np.uint8),
        policy_E=np.zeros(0, np.uint32),
        rate_E=np.zeros(0, np.float32),
        shown_L=np.zeros(0, np.uint64),
        shown_item_LN=none.astype(np.uint64),
        shown_x_LNF=np.zeros((0, 1, COLUMNS), np.float16),
        shown_propensity_LN=none.astype(np.float16),
        policy_L=np.zeros(0, np.uint32),
        rate_L=np.zeros(0, np.float32),
    )


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def megabytes(folder: Path, kind: str) -> float:
    """The newest file of a kind."""
    return max(folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime_ns).stat().st_size / 1e6


def resident() -> float:
    """Megabytes of memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def restarted(folder: CheckpointFolder, settings: Settings) -> Learner:
    """A learner as another process finds it."""
    found, learner = folder.latest(), Learner(settings)
    assert found is not None
    learner.restore(found.arrays, found.text, found.steps)
    return learner


def main() -> None:
    """Print a line per claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=12_000, help="between two checkpoints: 10 s at 1,200 a second")
    given = parser.parse_args()
    items, random = given.items, np.random.default_rng(0)
    share_N = 1 / (1 + np.arange(items))
    below_N = np.cumsum(share_N / share_N.sum())
    start_mb = resident()
    learner, offset = Learner(Settings(learner=LearnerSettings(max_items=items))), 0

    def some(shape: tuple[int, ...]) -> NDArray[np.uint64]:
        return 1 + np.searchsorted(below_N[:-1], random.random(shape)).astype(np.uint64)

    def learn(item_R: NDArray[np.uint64]) -> None:
        nonlocal offset
        learner.learn(an_observation(item_R, some((len(item_R), HELD)), offset))
        offset += len(item_R)

    for part in np.array_split(random.permutation(items).astype(np.uint64) + 1, -(-items // ROWS)):
        learn(part)
    vectors_ND = random.standard_normal((items, 64), np.float32)
    learner.factors = Factors(vectors_ND, vectors_ND + 1, learner.ids.ids_N)
    names = learner.names
    as_dict = sys.getsizeof(names) + sum(sys.getsizeof(i) + sys.getsizeof(name) for i, name in names.items())
    as_bytes = sum(array.nbytes for array in learner.roster.names.state().values())
    print(f"{items:,} items: names {as_bytes / 1e6:.0f} MB, in a dictionary {as_dict / 1e6:.0f} MB")
    print(f"memory {resident() - start_mb:,.0f} MB above the start")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal(CheckpointFolder(folder, keep=1))
        kinds: dict[str, list[tuple[float, float, float]]] = {"checkpoint": [], "increment": []}
        for _ in range(7):
            for _ in range(max(given.events // ROWS, 1)):
                learn(some((min(given.events, ROWS),)))
            if journal.expects_whole:
                sizes = {name: array.nbytes for name, array in learner.state()[0].items()}
                print(f"room for a whole made beside the learner in {seconds(lambda: journal.make_room(sizes)):.2f} s")  # noqa: B023
            began = time.perf_counter()
            taken = journal.take(Checkpoint(*learner.state(), {HERE: offset}), learner.pairs.log())
            pause_s = time.perf_counter() - began
            write_s = seconds(lambda taken=taken: journal.put(taken, offset))  # type: ignore[misc]
            kind = "checkpoint" if isinstance(taken, Checkpoint) else "increment"
            kinds[kind].append((megabytes(folder, kind), pause_s, write_s))
            del taken
        for kind, measured in kinds.items():
            if measured:
                mb, pause_s, write_s = np.median(np.array(measured), axis=0)
                print(f"{kind:>10}: {mb:7.1f} MB, pause {pause_s * 1e3:5.0f} ms, written in {write_s:5.2f} s")
        print(f"memory {resident() - start_mb:,.0f} MB above the start at most")
        print(f"restart in {seconds(lambda: restarted(CheckpointFolder(folder), learner.settings)):.1f} s")
    newcomers = np.arange(items + 1, items + 101, dtype=np.uint64)
    print(f"room for {items // 16:,} new items made in {seconds(lambda: learn(newcomers)) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
