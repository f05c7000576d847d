"""How good would it be on your own log? A CSV goes through the service's code, each event ranked before it is learned.

Run it: python examples/e04_your_own_log.py [FILE]; columns user_id, item_id and optionally timestamp, rating. Without a
file it makes one up: people who go through the chapters of a series in order. The same without Python:
marquee evaluate FILE --format csv --baseline popularity
"""

import random
import sys
import tempfile
from pathlib import Path

from streams.lab.baselines import Quality, measure
from streams.lab.datasets import read_log
from streams.lab.evaluation import run_evaluation
from streams.settings import Learner, Settings


def main(path: Path) -> dict[str, Quality]:
    """Measure Marquee and two yardsticks on a log."""
    log = read_log(path, "csv")
    settings = Settings(learner=Learner(refresh_events=100))  # a new snapshot every 100 events: it is a short log
    ours = run_evaluation(log, settings, batch=8)
    return {"marquee": ours.quality} | {name: measure(name, log) for name in ("popularity", "cooccurrence")}


def make_up(path: Path) -> Path:
    """Sixty people, five series of twenty chapters; everybody begins one somewhere and goes on in it."""
    chance, lines, now = random.Random(0), ["user_id,item_id,timestamp"], 1_767_225_600
    for person in range(60):
        series, chapter = chance.randrange(5), chance.randrange(10)
        for step in range(10):
            now += chance.randrange(60, 600)
            lines.append(f"u{person},s{series}c{chapter + step},{now}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        file = Path(sys.argv[1]) if len(sys.argv) > 1 else make_up(Path(folder) / "log.csv")
        for name, quality in main(file).items():
            print(f"{name:>14}: recall@10 {quality.recall_10:.3f}, NDCG@10 {quality.ndcg_10:.3f}")
