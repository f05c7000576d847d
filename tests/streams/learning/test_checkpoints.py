"""What is written of a learner's state, and what a learner that was killed at any point finds of it."""

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from embeddings.events import Source
from streams.contract.observations import Observation
from streams.learning import checkpoints
from streams.learning.checkpoints import Checkpoint, CheckpointFolder, Journal, UnreadableCheckpoint
from streams.learning.increments import BLOCK, Blocks, applied, copied
from streams.learning.learner import Learner
from tests.fuzzing import thorough
from tests.streams.builders import Service, a_learner, a_log, an_event, slates_of, small, told

HERE = Source("marquee.observations.v1", 3)


SETTINGS = small(learner={"attribution_s": 20})


def roomy() -> Learner:
    """A learner of which an observation changes a small part."""
    return a_learner(SETTINGS, buckets=1 << 14)


@pytest.fixture(scope="module")
def observations() -> list[Observation]:
    """What a worker tells of 300 events in batches of 20, every fourth an impression by place of a slate before."""
    service, log, out = Service(), a_log(300, items=40), list[Observation]()
    for at in range(0, 300, 20):
        answer = service.deliver(log[at : at + 20])
        out += told(answer)
        for n, slate in enumerate(slates_of(answer)[:5]):
            seen = {"kind": "impression", "slate_id": slate.slate_id, "slot": n % 3}
            if at + 30 + 4 * n < 300 and slate.items:
                log[at + 30 + 4 * n] = an_event(at + 30 + 4 * n, slate.user_id, None, **seen)
    return out


def everything(learner: Learner) -> dict[str, Any]:
    """A learner's state, comparable; where a block of pairs lies says nothing."""
    arrays, text = learner.state()
    some = {k: v.tobytes() for k, v in arrays.items() if not k.startswith(("pairs.start", "pairs.pool"))}
    return some | json.loads(text) | {"near": [a.tobytes() for a in learner.pairs.neighbours(40)]}


def restored(folder: CheckpointFolder) -> tuple[Learner, Checkpoint]:
    found, learner = folder.latest(), roomy()
    assert found is not None
    learner.restore(found.arrays, found.text, found.steps)
    return learner, found


def wrote(journal: Journal, learner: Learner, offset: int) -> list[str]:
    """Write a checkpoint; the files there are then."""
    taken = journal.take(Checkpoint(*learner.state(), {HERE: offset}, {HERE: "cluster/1"}), learner.pairs.log())
    journal.put(taken, learner.rows)
    return sorted(path.name.partition("-")[0] for path in journal.folder.folder.iterdir())


@pytest.mark.slow
def test_after_a_whole_come_increments_and_a_restart_finds_the_last_of_them(
    observations: list[Observation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_LARGEST_SHARE", 100)
    folder, learner = CheckpointFolder(tmp_path / "new"), roomy()
    journal, sizes = Journal(folder), []
    for n, observation in enumerate(observations):
        learner.learn(observation)
        files = wrote(journal, learner, n)
        assert files == ["checkpoint", *["increment"] * n]
        sizes.append(max(folder.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns).stat().st_size)
        again, found = restored(folder)
        assert everything(again) == everything(learner)
        assert (found.offsets, found.logs) == ({HERE: n}, {HERE: "cluster/1"})
    assert max(sizes[1:]) < sizes[0] / 2
    assert folder.latest(beyond=learner.rows - 1) is not None
    assert folder.latest(beyond=learner.rows) is None
    assert folder.start_over() == folder.folder / f"checkpoint-{learner.rows:020d}.safetensors"
    again, found = restored(folder)
    assert everything(again) == everything(learner)
    assert found.offsets == {}


@pytest.mark.slow
def test_a_whole_comes_again_when_increments_come_to_half_of_it(
    observations: list[Observation], tmp_path: Path
) -> None:
    folder, learner = CheckpointFolder(tmp_path, keep=1), roomy()
    journal, files = Journal(folder), list[list[str]]()
    for n, observation in enumerate([*observations, *observations]):
        learner.learn(replace(observation, log=f"cluster/{n // len(observations)}"))
        files.append(wrote(journal, learner, n))
        assert everything(restored(folder)[0]) == everything(learner)
    assert all(each.count("checkpoint") == 1 for each in files), "older ones go, with their increments"
    assert files.count(["checkpoint"]) > 1
    whole, *increments = (sum(p.stat().st_size for p in tmp_path.glob(f"{k}-*")) for k in ("checkpoint", "increment"))
    assert sum(increments) < whole


def test_a_whole_in_room_made_before_is_the_state_of_its_moment_though_it_grew_since(
    observations: list[Observation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_SMALL", 64)
    journal, learner = Journal(CheckpointFolder(tmp_path)), Learner(SETTINGS)
    for observation in observations[:5]:
        learner.learn(observation)
    learner.factors = learner.freeze().build(0)[1]
    assert journal.expects_whole
    journal.make_room({name: array.nbytes for name, array in learner.state()[0].items()})
    for observation in observations[5:8]:
        learner.learn(observation)
    before, rows = everything(learner), learner.rows
    taken = journal.take(Checkpoint(*learner.state(), {HERE: 8}, {}), learner.pairs.log())
    for observation in observations[8:]:
        learner.learn(observation)
    learner.factors = learner.freeze().build(1)[1]
    journal.put(taken, rows)
    assert everything(restored(journal.folder)[0]) == before
    assert not journal.expects_whole


def test_what_was_not_written_is_followed_by_a_whole(observations: list[Observation], tmp_path: Path) -> None:
    """The disk was full, or the process was told to end meanwhile."""
    journal, learner = Journal(CheckpointFolder(tmp_path)), roomy()
    learner.learn(observations[0])
    assert wrote(journal, learner, 0) == ["checkpoint"]
    learner.learn(observations[1])
    journal.take(Checkpoint(*learner.state(), {}), learner.pairs.log())
    learner.learn(observations[2])
    assert wrote(journal, learner, 2) == ["checkpoint", "checkpoint"]
    assert everything(restored(journal.folder)[0]) == everything(learner)
    learner.learn(observations[3])
    assert wrote(journal, learner, 3) == ["checkpoint", "checkpoint", "increment"]
    journal.begin_anew()
    learner.learn(observations[4])
    assert wrote(journal, learner, 4) == ["checkpoint", "checkpoint", "checkpoint", "increment"]
    learner.learn(observations[5])
    slow = journal.take(Checkpoint(*learner.state(), {}), learner.pairs.log())
    rows = learner.rows
    learner.learn(observations[6])
    journal.take(Checkpoint(*learner.state(), {}), learner.pairs.log())  # and lost, when the one before is written
    journal.put(slow, rows)
    learner.learn(observations[7])
    wrote(journal, learner, 7)
    assert everything(restored(journal.folder)[0]) == everything(learner)


def test_a_disk_that_is_full_leaves_what_was_there(observations: list[Observation], tmp_path: Path) -> None:
    journal, learner = Journal(CheckpointFolder(tmp_path)), roomy()
    learner.learn(observations[0])
    wrote(journal, learner, 0)
    before, limits = everything(learner), resource.getrlimit(resource.RLIMIT_FSIZE)
    for n in (1, 2):
        learner.learn(observations[n])
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(OSError, match=r"safetensors cannot be written: .*large"):
                wrote(journal, learner, n)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
        assert everything(restored(journal.folder)[0]) == before
    learner.learn(observations[3])
    assert wrote(journal, learner, 3) == ["checkpoint", "checkpoint"]
    assert everything(restored(journal.folder)[0]) == everything(learner)


def test_what_is_learned_while_a_checkpoint_is_written_is_not_in_it(
    observations: list[Observation], tmp_path: Path
) -> None:
    journal, learner = Journal(CheckpointFolder(tmp_path)), roomy()
    for observation in observations[:4]:
        learner.learn(observation)
        before, taken = everything(learner), journal.take(Checkpoint(*learner.state(), {}), learner.pairs.log())
        rows = learner.rows
        for later in observations[4:]:
            learner.learn(replace(later, log=f"cluster/{rows}"))
        journal.put(taken, rows)
        assert everything(restored(journal.folder)[0]) == before


@pytest.mark.slow
def test_a_learner_killed_at_any_point_finds_a_state_as_it_was(observations: list[Observation], tmp_path: Path) -> None:
    """Of every prefix of what is written, with what is half written beside it."""
    journal, learner, states = Journal(CheckpointFolder(tmp_path / "all")), roomy(), list[dict[str, Any]]()
    for n, observation in enumerate(observations):
        learner.learn(observation)
        wrote(journal, learner, n)
        states.append(everything(learner))
        killed = tmp_path / str(n)
        shutil.copytree(journal.folder.folder, killed)
        newest = max(killed.glob("*.safetensors"), key=lambda path: int(path.stem.rpartition("-")[2]))
        (killed / "increment-0-0.part").write_bytes(newest.read_bytes()[:100])
        again, found = restored(CheckpointFolder(killed))
        assert everything(again) == states[n]
        for later in observations[found.offsets[HERE] :]:  # one of them for the second time
            again.learn(later)
            again.step()  # as a checkpoint does
        states[n] = everything(again)
    assert all(state == everything(learner) for state in states)
    assert learner.trainer.outcome("click").rows > 40, "of slates that were told before and after"


def test_an_increment_that_is_damaged_or_missing_is_not_passed_over(
    observations: list[Observation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_LARGEST_SHARE", 100)
    journal, learner = Journal(CheckpointFolder(tmp_path)), roomy()
    for n, observation in enumerate(observations[:4]):
        learner.learn(observation)
        wrote(journal, learner, n)
    increments = sorted(tmp_path.glob("increment-*"))
    good = increments[1].read_bytes()
    increments[1].write_bytes(good[: len(good) // 2])
    with pytest.raises(UnreadableCheckpoint, match=increments[1].name):
        journal.folder.latest()
    increments[1].unlink()
    with pytest.raises(UnreadableCheckpoint, match="increment 2 before it is missing"):
        journal.folder.latest()


@pytest.mark.slow
def test_there_may_be_more_names_than_a_file_has_room_for_texts(tmp_path: Path) -> None:
    """The metadata of a file end at 100 MB: a learner died of them at 1.7 million names."""
    learner = roomy()
    rows = learner.ids.ensure(np.arange(1, 250_001, dtype=np.uint64))
    learner.roster.names.put(rows, [f"{row:0500d}" for row in rows.tolist()])
    folder = CheckpointFolder(tmp_path)
    folder.write(Checkpoint(*learner.state(), {}), 1)
    again, _ = restored(folder)
    assert again.roster.names.of(rows[[0, -1]]) == [f"{row:0500d}" for row in (0, 249_999)]


def test_a_checkpoint_of_an_earlier_release_is_read(observations: list[Observation], tmp_path: Path) -> None:
    """Its names were in the text, and nobody had been told which items the catalogue held."""
    learner = roomy()
    for observation in observations[:9]:
        learner.learn(observation)
    learner.factors = learner.freeze().build(0)[1]
    arrays, text = learner.state()
    new = ("names.", "listed", "factors.ids")
    old = {name: np.ascontiguousarray(array) for name, array in arrays.items() if not name.startswith(new)}
    state = json.dumps(json.loads(text) | {"names": {str(item): name for item, name in learner.names.items()}})
    path = tmp_path / f"checkpoint-{180:020d}.safetensors"
    save_file(old, path, metadata={"state": state, "offsets": json.dumps([[*HERE, 9]])})
    again, found = restored(CheckpointFolder(tmp_path))
    assert found.offsets == {HERE: 9}
    assert again.names == learner.names
    for observation in observations[9:]:
        assert again.learn(observation) == learner.learn(observation)
    one, other = (each.freeze().build(5)[0] for each in (learner, again))
    assert one.names == other.names
    np.testing.assert_array_equal(one.target_ND, other.target_ND)


@given(st.lists(st.integers(0, 4 * BLOCK), min_size=2, max_size=5), st.randoms(use_true_random=False))
@thorough(40)
def test_changed_blocks_make_an_array_what_it_is(sizes: list[int], random: Any) -> None:
    """Grown, cut, or changed in one place."""
    blocks, array, copy = Blocks(), np.zeros(0, np.uint8), None
    for size in sizes:
        array = np.append(array, np.zeros(max(size - len(array), 0), np.uint8))[:size]
        if size:
            array[random.randrange(size)] += 1
        (changed,) = blocks.look({"a": array}).values()
        assert len(changed) <= -(-size // BLOCK)
        copy = applied(copy, copied(array, changed))
        assert copy.tolist() == array.tolist()
    assert not len(blocks.look({"a": array})["a"])
