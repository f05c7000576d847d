"""How often properties are tried and decoders are fed with something made up, and what that is made of.

`EXAMPLES` says how often, 100 times unless it does: `make prove` asks for 100,000 inputs, `make quick` for a fifth of
the examples of every property.
"""

import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("EXAMPLES", "100"))
_SHARE = min(EXAMPLES / 100, 1)


def thorough(examples: int) -> settings:
    """So many examples, fewer where `EXAMPLES` is less than 100; none has a deadline."""
    return settings(max_examples=round(examples * _SHARE), deadline=None)


settings.register_profile("examples", settings(), max_examples=round(100 * _SHARE))
settings.load_profile("examples")
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
#: Where one input is a run through a whole service.
fuzz_service = settings(fuzz, max_examples=max(EXAMPLES // 20, 20))

INT64 = st.integers(-(2**63), 2**63 - 1)
ODD_NUMBERS = st.sampled_from([0, -1, 1, 255, 2**31, 2**32, 2**53, 2**63, 2**64, 10**40, 1e18, 1e39, 1e308, -1e308])
ODD_TEXTS = st.sampled_from(
    ["", "null", '"u"', '{"id":"u"}', "[1]", "\0", "Struct{a=b}", "x" * 513, "ü-日本-😀", "\ud800", "CPAA=="]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), ODD_NUMBERS, st.floats(), st.text(max_size=12), ODD_TEXTS
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def written(value: Any) -> bytes:
    """As a careless producer writes JSON: NaN, lone surrogates and all."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def objects(**likely: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose members have these names and, mostly, values of these strategies."""
    members = {name: st.one_of(values, values, VALUES) for name, values in likely.items()}
    return st.fixed_dictionaries({}, optional=members | {"more": VALUES})


@st.composite
def damaged(draw: st.DrawFn, values: st.SearchStrategy[bytes]) -> bytes:
    """Bytes cut short, with a piece lost, repeated or replaced, or as they were."""
    value = draw(values)
    begin = draw(st.integers(0, len(value)))
    end = draw(st.integers(begin, min(len(value), begin + 8)))
    middle = draw(st.one_of(st.binary(max_size=8), st.just(value[begin:end] * 2), st.just(b"")))
    return draw(st.sampled_from([value, value[:begin], value[:begin] + middle + value[end:], value[begin:]]))
