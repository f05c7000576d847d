"""What the fields of records may be, and what all records share."""

from typing import Annotated

from msgspec import Meta, Struct

UNKNOWN = "unknown"
#: March 1973: before it lie the seconds of every date up to the year 5138, so that these are taken for no time.
FIRST_MS = 100_000_000_000
#: Year 2106, when seconds no longer fit 32 bits in a state: nothing happened or was published later.
LAST_KEPT_MS = (2**32 - 1) * 1_000
#: Year 9999; milliseconds beyond it are no date.
LAST_MS = 253_402_300_799_999

Id = Annotated[str, Meta(max_length=512)]
Text = Annotated[str, Meta(max_length=8_192)]
Word = Annotated[str, Meta(max_length=128)]
#: A language tag (BCP 47): a language of two or three letters, then subtags.
Tag = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*\Z")]
Ms = Annotated[int, Meta(ge=0, le=LAST_MS)]
#: Finite as a 32-bit float.
Number = Annotated[float, Meta(ge=-3e38, le=3e38)]
Count = Annotated[float, Meta(ge=0, le=1e18)]
Whole = Annotated[int, Meta(ge=0, le=10**18)]
Flag = bool | int | None


class Record(Struct, kw_only=True, omit_defaults=True, gc=False):
    """What all records share: defaults are left out when written."""
