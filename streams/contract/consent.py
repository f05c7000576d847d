"""What a person allows, judged from the raw consent strings of an event or request and kept only as bits.

Fails closed: a string that cannot be read allows nothing. TCF v2 strings are read by this module, because the one
parser on PyPI ended in 2022, before disclosed vendors: the core is fixed-width bits (IAB Europe, "Consent string and
vendor list formats v2"). Of the Global Privacy Platform the sections TCF EU (2), US Privacy (6) and US National (7) are
read; any other US section that applies counts as opted out of ads, any other section at all as no consent.

>>> Judge(default=CONSENT_ALL).bits(None) == CONSENT_ALL
True
>>> Judge(default=CONSENT_ALL).bits(Consent(gdpr=1))
0
>>> Judge(default=CONSENT_ALL).bits(Consent(lmt=1)) & CONSENT_ADS
0
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeGuard

from embeddings.events import CONSENT_ADS, CONSENT_ALL, CONSENT_CONTENT, CONSENT_PROFILE, CONSENT_STORE
from streams.contract.records import Consent, Request

NOTHING = 0
#: Without both an event leaves no trace in a profile: its fate is `unconsented`.
CONSENT_LEARN = CONSENT_STORE | CONSENT_PROFILE
_US_SECTIONS = range(6, 28)
_DISCLOSED = 1
_LARGEST_SECTION = 1_024
_LETTERS = re.compile(r"[A-Za-z0-9+/_-]*")


class UnreadableConsent(ValueError):
    """A consent string is not what it claims to be. It allows nothing; the record goes on without consent."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Maps consent objects to bits; remembers the last few thousand strings.

    `default` is what silence means; `vendor_id`, when set, must have consent itself.
    """

    default: int
    vendor_id: int | None = None
    _seen: dict[tuple[object, ...], int] = field(default_factory=dict, compare=False, repr=False)

    def bits(self, consent: Consent | None) -> int:
        """`CONSENT_*` bits; the default for None."""
        if consent is None:
            return self.default
        c = consent
        asked = (c.gdpr, c.tcf, c.gpp, c.gpp_sid, c.coppa, c.lmt, c.us_privacy)
        found = self._seen.get(asked)
        if found is None:
            if len(self._seen) >= 4_096:
                self._seen.clear()
            found = self._seen[asked] = self._judge(consent)
        return found

    def of_request(self, request: Request) -> int:
        """The bits of a request: of its `consent`, and of OpenRTB's `regs`, `user` and `device`; of both the stricter.

        Flags only ever take away: who says `lmt` 0 and no more has said nothing.
        """
        said = [each for each in (request.consent, _openrtb(request)) if each is not None]
        regulated = [self.bits(each) for each in said if _regulates(each)]
        if any(each.coppa for each in said):
            return NOTHING
        allowed = strictest(*regulated) if regulated else self.default
        return allowed & ~CONSENT_ADS if any(each.lmt for each in said) else allowed

    def _judge(self, consent: Consent) -> int:
        if consent.coppa:
            return NOTHING
        try:
            allowed = self._regulated(consent)
        except UnreadableConsent:
            return NOTHING
        return allowed & ~CONSENT_ADS if consent.lmt else allowed

    def _regulated(self, consent: Consent) -> int:
        if not _regulates(consent):
            return self.default
        allowed = _us_privacy(consent.us_privacy) if _applies(consent.us_privacy) else CONSENT_ALL
        if consent.gdpr or (consent.gdpr is None and consent.tcf is not None):
            allowed &= tcf_bits(consent.tcf, self.vendor_id) if consent.tcf else self._tcf_of_gpp(consent)
        if consent.gpp is not None or consent.gpp_sid:
            allowed &= gpp_bits(consent.gpp or "", consent.gpp_sid or (), self.vendor_id)
        return allowed

    def _tcf_of_gpp(self, consent: Consent) -> int:
        section = gpp_sections(consent.gpp or "").get(2)
        return tcf_bits(section, self.vendor_id) if section else NOTHING


def _openrtb(request: Request) -> Consent | None:
    """What OpenRTB's members of a request say of consent; None where they are not there."""
    regs, user, device = request.regs, request.user, request.device
    if regs is None and user is None and device is None:
        return None
    return Consent(
        gdpr=regs.gdpr if regs else None,
        tcf=(user.consent or None) if user else None,
        gpp=(regs.gpp or None) if regs else None,
        gpp_sid=(regs.gpp_sid or ()) if regs else (),
        coppa=regs.coppa if regs else None,
        lmt=device.lmt if device else None,
        us_privacy=regs.us_privacy if regs else None,
    )


def _regulates(consent: Consent) -> bool:
    """Does it say which rules hold, or under one of them what is allowed? Flags alone do not."""
    strings = (consent.gdpr, consent.tcf, consent.gpp)
    return strings != (None, None, None) or bool(consent.gpp_sid) or _applies(consent.us_privacy)


def _applies(us_privacy: str | None) -> TypeGuard[str]:
    return us_privacy not in (None, "", "1---")


def strictest(*bits: int) -> int:
    """What all of several judgements allow; of event and request the stricter wins."""
    allowed = CONSENT_ALL
    for each in bits:
        allowed &= each
    return allowed


@lru_cache(4_096)
def tcf_bits(text: str, vendor_id: int | None = None) -> int:
    """What a TCF v2 string allows: purposes 1 store, 5 content profile, 6 its use, 3 and 4 ads profile and its use.

    Only consent counts: purposes 1 and 3 to 6 have no legitimate interest since TCF 2.2.

    Raises:
        UnreadableConsent: Not a TCF v2 string. It allows nothing.
    """
    core, *others = text.split(".")
    bits = _Bits(core)
    if bits.number(0, 6) != 2:
        raise UnreadableConsent("not version 2")
    allows = [False] + [bits.number(152 + n, 1) == 1 for n in range(24)]
    if not allows[1] or (vendor_id is not None and not _vendor_allowed(bits, others, vendor_id)):
        return NOTHING
    out = CONSENT_STORE
    out |= CONSENT_PROFILE if allows[5] else 0
    out |= CONSENT_CONTENT if allows[6] else 0
    return out | (CONSENT_ADS if allows[2] and allows[3] and allows[4] else 0)


def gpp_bits(text: str, applicable: tuple[int, ...], vendor_id: int | None = None) -> int:
    """What a GPP string allows under the sections that apply; without any it is not to be trusted.

    Raises:
        UnreadableConsent: Not a GPP string, or an applicable section is missing. It allows nothing.
    """
    sections = gpp_sections(text)
    allowed = CONSENT_ALL
    for number in applicable or sections:
        if number == -1:
            continue
        if number not in sections:
            raise UnreadableConsent("an applicable section is missing")
        allowed &= _section_bits(number, sections[number], vendor_id)
    return allowed


@lru_cache(4_096)
def gpp_sections(text: str) -> dict[int, str]:
    """The sections of a GPP string by their numbers.

    Raises:
        UnreadableConsent: Not a GPP string. It allows nothing.
    """
    head, *bodies = text.split("~")
    bits = _Bits(head)
    if bits.number(0, 6) != 3:
        raise UnreadableConsent("not a GPP header")
    numbers = list(_fibonacci_range(bits, 12))
    if len(numbers) != len(bodies):
        raise UnreadableConsent("header and sections differ")
    return dict(zip(numbers, bodies, strict=True))


def _section_bits(number: int, body: str, vendor_id: int | None) -> int:
    if number == 2:
        return tcf_bits(body, vendor_id)
    if number == 6:
        return _us_privacy(body)
    if number == 7:
        return _us_national(body)
    return CONSENT_ALL & ~CONSENT_ADS if number in _US_SECTIONS else NOTHING


def _us_privacy(body: str) -> int:
    """`1YNN`: version, notice given, opted out of sale, covered by the LSPA."""
    if len(body) != 4 or body[0] != "1" or any(letter not in "YN-yn" for letter in body[1:]):
        raise UnreadableConsent("not a US Privacy string")
    return CONSENT_ALL & ~CONSENT_ADS if body[2] in "Yy" else CONSENT_ALL


def _us_national(body: str) -> int:
    """Opted out of sale, sharing or targeted ads, or the GPC signal: no ads profile. A known child: nothing."""
    core, *others = body.split(".")
    bits = _Bits(core)
    version = bits.number(0, 6)
    if version not in (1, 2):
        raise UnreadableConsent("unknown version of the US National section")
    sale, sharing, targeted = (bits.number(at, 2) for at in (18, 20, 22))
    children = 48 if version == 1 else 56
    if any(bits.number(children + 2 * n, 2) for n in range(2 if version == 1 else 3)):
        return NOTHING
    gpc = any((sub := _Bits(other)).number(0, 2) == 1 and sub.number(2, 1) for other in others)
    return CONSENT_ALL & ~CONSENT_ADS if gpc or 1 in (sale, sharing, targeted) else CONSENT_ALL


def _vendor_allowed(core: "_Bits", others: list[str], vendor_id: int) -> bool:
    """Has the vendor consent, and was it disclosed? From policy 5 on (TCF 2.3) a string must list whom it disclosed."""
    if not _lists(core, 213, vendor_id):
        return False
    disclosed = [bits for bits in map(_Bits, others) if bits.number(0, 3) == _DISCLOSED]
    if not disclosed:
        return core.number(132, 6) < 5
    return _lists(disclosed[0], 3, vendor_id)


def _lists(bits: "_Bits", at: int, vendor_id: int) -> bool:
    """Is a vendor in a TCF vendor section? The greatest id, then a bit per id or a list of ranges."""
    greatest, by_range = bits.number(at, 16), bits.number(at + 16, 1)
    at += 17
    if vendor_id > greatest:
        return False
    if not by_range:
        return bits.number(at + vendor_id - 1, 1) == 1
    entries, at = bits.number(at, 12), at + 12
    for _ in range(entries):
        is_range = bits.number(at, 1)
        first = bits.number(at + 1, 16)
        last = bits.number(at + 17, 16) if is_range else first
        if first <= vendor_id <= last:
            return True
        at += 33 if is_range else 17
    return False


def _fibonacci_range(bits: "_Bits", at: int) -> Iterator[int]:
    """GPP's list of section numbers: each is a gap to the last in Fibonacci coding, or a gap and a length."""
    entries, at, last = bits.number(at, 12), at + 12, 0
    for _ in range(entries):
        is_range = bits.number(at, 1)
        gap, at = _fibonacci(bits, at + 1)
        first = last = last + gap
        if is_range:
            gap, at = _fibonacci(bits, at)
            last += gap
        if last > _LARGEST_SECTION:
            raise UnreadableConsent("section number out of range")
        yield from range(first, last + 1)


def _fibonacci(bits: "_Bits", at: int) -> tuple[int, int]:
    """One number in Fibonacci coding, which ends with two ones, and the position after it."""
    value, weight, following, before = 0, 1, 2, 0
    while True:
        bit = bits.number(at, 1)
        at += 1
        if bit and before:
            return value, at
        if weight > _LARGEST_SECTION:
            raise UnreadableConsent("section number out of range")
        value += weight * bit
        weight, following, before = following, weight + following, bit


class _Bits:
    """The bits of a base64url segment, six a letter; whatever lies beyond its end is unreadable."""

    __slots__ = ("_length", "_value")

    def __init__(self, segment: str) -> None:
        if not _LETTERS.fullmatch(segment):
            raise UnreadableConsent("not base64url, which has no padding")
        data = base64.b64decode(segment + "A" * (-len(segment) % 4), altchars=b"-_")
        unused = 8 * len(data) - 6 * len(segment)
        self._value, self._length = int.from_bytes(data) >> unused, 6 * len(segment)

    def number(self, at: int, width: int) -> int:
        """The unsigned number of `width` bits at a position."""
        if at + width > self._length:
            raise UnreadableConsent("cut short")
        return (self._value >> (self._length - at - width)) & ((1 << width) - 1)
