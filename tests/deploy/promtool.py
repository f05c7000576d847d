"""Prometheus' own tool: its verdict is the test's."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.boards.__main__ import HERE

RULES = tuple(HERE / "prometheus" / f"{name}.yaml" for name in ("recording", "alerts"))


def promtool(*arguments: str) -> None:
    """Have it look at something."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool comes with Debian's prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def cases(
    path: Path, every: str, series: list[dict[str, str]], asked: list[dict[str, Any]], rules: Sequence[Path] = RULES
) -> None:
    """Evaluate rules over series and compare what is asked of them."""
    test = {"interval": every, "input_series": series, "promql_expr_test": asked}
    files = [str(rule) for rule in rules]
    path.write_text(json.dumps({"rule_files": files, "evaluation_interval": every, "tests": [test]}))
    promtool("test", "rules", str(path))
