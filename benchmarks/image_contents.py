"""What pip puts into the images of worker and learner, in bytes on disk.

    python -m benchmarks.image_contents [--json]

Of the environment this runs in, which has every extra: each distribution that an extra asks for, by what it asks for in
turn, with the sizes of its files. Python itself and the compiled loops are not in it.
"""

import json
import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

IMAGES = {"worker": {"cpu"}, "learner": {"cpu", "learner"}}
CUDA = re.compile(r"nvidia-|cuda-|triton")


def needed(name: str, extras: set[str]) -> dict[str, Distribution]:
    """Every distribution that one with these extras needs, itself among them, by name."""
    found: dict[str, Distribution] = {}
    open_ends = [(name, frozenset(extras))]
    seen = set(open_ends)
    while open_ends:
        name, wanted = open_ends.pop()
        found[plain(name)] = distribution(name)
        for line in distribution(name).requires or ():
            requirement = Requirement(line)
            contexts = [{"extra": extra} for extra in wanted] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(context) for context in contexts):
                end = requirement.name, frozenset(requirement.extras)
                if end not in seen:
                    seen.add(end)
                    open_ends.append(end)
    return found


def plain(name: str) -> str:
    """A distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def size_bytes(of: Distribution) -> int:
    """Of all its files that are there; an editable one's are not."""
    places = (Path(str(file.locate())) for file in of.files or ())
    return sum(place.stat().st_size for place in places if place.is_file() and place.suffix != ".pyc")


def main() -> None:
    contents = {image: needed("marquee", extras) for image, extras in IMAGES.items()}
    sizes = {name: size_bytes(of) for name, of in contents["learner"].items()}
    totals = {image: sum(sizes[name] for name in found) for image, found in contents.items()}
    totals["learner without what CUDA needs beside torch"] = totals["learner"] - sum(
        size for name, size in sizes.items() if CUDA.match(name)
    )
    if "--json" in sys.argv:
        print(json.dumps({"distributions": sizes, "worker": sorted(contents["worker"]), "totals": totals}))
        return
    for name, size in sorted(sizes.items(), key=lambda pair: -pair[1]):
        where = "both" if name in contents["worker"] else "learner"
        print(f"{size / 2**20:9.1f} MiB  {where:8} {name} {contents['learner'][name].version}")
    for image, total in totals.items():
        print(f"{total / 2**20:9.1f} MiB  {image}")


if __name__ == "__main__":
    main()
