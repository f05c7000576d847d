"""The commands around what is remembered of the topics: marks in Redis, the offsets of the learner's checkpoint."""

from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.console import Config, Failed, Json, err, finish, load

if TYPE_CHECKING:
    from streams.settings import Settings

state_app = typer.Typer(no_args_is_help=True, help="What is remembered: states, and how far topics were read.")


@state_app.command("reset-marks")
def reset_marks(
    topic: Annotated[str, typer.Option(help="The topic that was made anew: its name, or events, or observations.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Forget how far a topic was read, after it was made anew: it is read from its start. What was learned stays."""
    settings = load(config)
    names = settings.topics.name
    known = {"events": names("events"), "observations": names("observations")}
    name = known.get(topic, topic)
    if name not in known.values():
        both = " and ".join(known.values())
        raise Failed(f"nothing is remembered of {topic!r}: offsets are remembered of {both}")
    said = _of_events(settings, name) if name == known["events"] else _of_observations(settings)
    err.print(said, markup=False, soft_wrap=True)
    finish({"topic": name, "done": said}, as_json)


def _of_events(settings: "Settings", topic: str) -> str:
    from streams.worker.stores import user_store

    store = user_store(settings)
    try:
        partitions = store.start_over(topic)
    except ValueError as error:
        advice = "set another redis.prefix, which starts with no state at all"
        raise Failed(
            f"{topic} was made anew too often for what users' states can tell apart ({error}): {advice}"
        ) from None
    finally:
        store.close()
    return f"{topic}: {partitions} partitions are read from their start"


def _of_observations(settings: "Settings") -> str:
    from streams.learning.checkpoints import CheckpointFolder

    folder = settings.learner.checkpoint_dir
    path = CheckpointFolder(folder, settings.learner.keep).start_over()
    if path is None:
        return f"there is no checkpoint in {folder}: the learner reads from the start anyway"
    return f"{path}: observations are read from their start; rows that were learned are passed over"
