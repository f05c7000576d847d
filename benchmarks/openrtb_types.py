"""Whether what `streams.contract.openrtb` writes is OpenRTB 2.6 in the eyes of a foreign type check.

    python -m benchmarks.openrtb_types

Needs node and npm, which bring `iab-openrtb` and the TypeScript compiler from the registry into a temporary folder. A
request and a decision that use every member, and answers without a bid, are written as literals of their types; names
that the types do not have are errors then. One that is wrong on purpose must be refused. Exit status 1: no.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from streams.contract.ad_records import AdDecision
from streams.contract.openrtb import bid_request, bid_response
from streams.contract.records import decode_request

PACKAGES = ("iab-openrtb@2.1.0", "typescript@5")
REQUEST = Path(__file__).parents[1] / "tests/streams/contract/golden/requests.imp.v1.json"
WON = AdDecision(
    decision_id="d1", imp_id="1", filled=True, campaign_id="c", creative="c/l/cr", crid="cr", advertiser="acme",
    adomain=("acme.example",), cat=("705",), cattax=3, attr=(1,), price_micros=2_500, currency="EUR", dealid="d",
    dur=15, decided_ms=1_000, expires_ms=31_000, behalf="Acme", paid="Agency",
    transparency=({"domain": "a.example", "dsaparams": [1]},),
)  # fmt: skip
OPTIONS = {"strict": True, "noEmit": True, "module": "nodenext", "moduleResolution": "nodenext", "target": "es2022"}


def literals() -> list[tuple[str, dict[str, Any], bool]]:
    """Types, values, and whether they are right."""
    request = bid_request(decode_request(REQUEST.read_bytes()))
    return [
        ("BidRequest", request, True),
        ("BidRequest", request | {"imps": request["imp"]}, False),
        ("BidResponse", bid_response("r1", [WON]), True),
        ("BidResponse", bid_response("r1", [AdDecision(decision_id="d", nbr=2)]), True),
        ("BidResponse", bid_response("r1", [WON]) | {"cur": 978}, False),
    ]


def source() -> str:
    lines = ['import { BidRequest, BidResponse } from "iab-openrtb/v26";']
    for n, (type_, value, right) in enumerate(literals()):
        lines += [] if right else ["// @ts-expect-error"]
        lines.append(f"export const v{n}: {type_} = {json.dumps(value)};")
    return "\n".join(lines)


def main() -> None:
    if shutil.which("npm") is None:
        sys.exit("npm is not installed: it comes with node")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "check.ts").write_text(source())
        (Path(folder) / "package.json").write_text("{}")
        (Path(folder) / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "files": ["check.ts"]}))
        subprocess.run(["npm", "install", "--silent", *PACKAGES], cwd=folder, check=True)
        done = subprocess.run(["npx", "tsc", "-p", "."], cwd=folder, check=False)
    if not done.returncode:
        print(f"{len(literals())} literals are what iab-openrtb says, wrong ones are refused")
    sys.exit(bool(done.returncode))


if __name__ == "__main__":
    main()
