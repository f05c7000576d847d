"""Prometheus from Debian on a loopback port, for tests of boards and rules: it scrapes every second or so.

with PrometheusServer(jobs={"marquee": {"targets": ["127.0.0.1:6066"]}}) as server:
run(server.url)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.embedded import Server
from deploy.processes import serves


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is scraped under one name, with labels of its own."""

    name: str
    targets: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)


class PrometheusServer(Server):
    """The binary `prometheus`, its data in a temporary folder."""

    name = "prometheus"
    start_timeout_s = 30.0

    def __init__(self, jobs: Sequence[Job], *, rules: Sequence[Path] = (), every: str = "1s") -> None:
        """Scrape `jobs` and evaluate `rules`, both `every` so often."""
        super().__init__()
        self.jobs, self.rules, self.every = jobs, rules, every

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Loopback, a configuration of its own, data beside it."""
        configuration = self.folder / "prometheus.json.yml"
        configuration.write_text(json.dumps(self._configuration()), encoding="utf-8")
        return [
            "prometheus",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def answers(self) -> bool:
        """Whether it is ready to be asked."""
        return serves(f"{self.url}/-/ready")

    def _configuration(self) -> Mapping[str, object]:
        return {
            "global": {"scrape_interval": self.every, "scrape_timeout": self.every, "evaluation_interval": self.every},
            "rule_files": [str(path.resolve()) for path in self.rules],
            "scrape_configs": [
                {
                    "job_name": job.name,
                    "static_configs": [{"targets": list(job.targets), "labels": dict(job.labels)}],
                }
                for job in self.jobs
            ],
        }
