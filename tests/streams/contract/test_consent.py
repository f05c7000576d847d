"""Strings are built bit by bit here, from the published formats, so that writer and reader share no code; the strings
of `test_published_strings…` come from the specifications' examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.events import CONSENT_ADS, CONSENT_ALL, CONSENT_CONTENT, CONSENT_PROFILE, CONSENT_STORE
from streams.contract.consent import NOTHING, Judge, UnreadableConsent, gpp_sections, strictest, tcf_bits
from streams.contract.records import Consent

NO_ADS = CONSENT_ALL & ~CONSENT_ADS
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ALL_PURPOSES = set(range(1, 12))
JUDGE = Judge(default=NOTHING)


def segment(bits: str) -> str:
    bits += "0" * (-len(bits) % 6)
    return "".join(LETTERS[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def number(value: int, width: int) -> str:
    return f"{value:0{width}b}"


def vendors(ids: set[int], ranges: list[tuple[int, int]] | None = None) -> str:
    greatest = max([*ids, *(last for _, last in ranges or []), 0])
    if ranges is None:
        return number(greatest, 16) + "0" + "".join(str(int(n + 1 in ids)) for n in range(greatest))
    entries = "".join("1" + number(a, 16) + number(b, 16) if a != b else "0" + number(a, 16) for a, b in ranges)
    return number(greatest, 16) + "1" + number(len(ranges), 12) + entries


def tcf(purposes: set[int], section: str = "", policy: int = 4, disclosed: str | None = None) -> str:
    allowed = "".join(str(int(n + 1 in purposes)) for n in range(24))
    head = number(2, 6) + "0" * (36 + 36 + 12 + 12 + 6 + 12 + 12) + number(policy, 6) + "00" + "0" * 12
    core = head + allowed + "0" * 24 + "0" + "0" * 12 + (section or vendors(set())) + vendors(set()) + "0" * 12
    return segment(core) + ("" if disclosed is None else "." + segment(number(1, 3) + disclosed))


def us_national(sale: int = 2, sharing: int = 2, targeted: int = 2, child: int = 0) -> str:
    notices = "01" * 6
    bits = [number(1, 6), notices, number(sale, 2), number(sharing, 2), number(targeted, 2), "00" * 12]
    return segment("".join(bits) + number(child, 2) + "00" + "00" * 4)


#: Section 7 is `0001` + `1` in Fibonacci coding: 7 = 5 + 2.
USNAT = segment(number(3, 6) + number(1, 6) + number(1, 12) + "0" + "01011")


@pytest.mark.parametrize(
    ("purposes", "bits"),
    [
        (ALL_PURPOSES, CONSENT_ALL),
        (set(), NOTHING),
        ({1}, CONSENT_STORE),
        (ALL_PURPOSES - {1}, NOTHING),
        ({1, 5, 6}, NO_ADS),
        ({1, 5}, CONSENT_STORE | CONSENT_PROFILE),
        ({1, 6}, CONSENT_STORE | CONSENT_CONTENT),
        ({1, 2, 3, 4}, CONSENT_STORE | CONSENT_ADS),
        ({1, 2, 4}, CONSENT_STORE),
        ({1, 2, 3}, CONSENT_STORE),
        ({1, 3, 4}, CONSENT_STORE),
    ],
)
def test_purposes_of_tcf_become_bits(purposes: set[int], bits: int) -> None:
    assert tcf_bits(tcf(purposes)) == bits
    assert JUDGE.bits(Consent(gdpr=1, tcf=tcf(purposes))) == bits
    assert JUDGE.bits(Consent(tcf=tcf(purposes))) == bits


@pytest.mark.parametrize(
    ("section", "policy", "disclosed", "allowed"),
    [
        (vendors({755}), 4, None, True),
        (vendors({754, 756}), 4, None, False),
        (vendors({3}), 4, None, False),
        (vendors(set(), [(1, 2), (700, 800)]), 4, None, True),
        (vendors(set(), [(755, 755)]), 4, None, True),
        (vendors(set(), [(1, 754), (756, 800)]), 4, None, False),
        (vendors({755}), 5, None, False),
        (vendors({755}), 5, vendors({755}), True),
        (vendors({755}), 5, vendors({1}), False),
        (vendors({755}), 4, vendors(set(), [(1, 3)]), False),
    ],
)
def test_a_vendor_needs_consent_and_disclosure(section: str, policy: int, disclosed: str | None, allowed: bool) -> None:
    text = tcf(ALL_PURPOSES, section, policy, disclosed)
    assert tcf_bits(text, 755) == (CONSENT_ALL if allowed else NOTHING)
    assert tcf_bits(text) == CONSENT_ALL


@pytest.mark.parametrize(
    ("consent", "bits"),
    [
        (Consent(gdpr=1), NOTHING),
        (Consent(gdpr=True), NOTHING),
        (Consent(gdpr=0), CONSENT_ALL),
        (Consent(gdpr=0, tcf="rubbish"), CONSENT_ALL),
        (Consent(gdpr=1, tcf="rubbish"), NOTHING),
        (Consent(gdpr=1, tcf=""), NOTHING),
        (Consent(tcf="BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA"), NOTHING),
        (Consent(gdpr=0, coppa=1), NOTHING),
        (Consent(gdpr=0, lmt=1), NO_ADS),
        (Consent(gdpr=1, tcf=tcf(ALL_PURPOSES), lmt=1), NO_ADS),
        (Consent(gpp="rubbish"), NOTHING),
        (Consent(gpp_sid=(2,)), NOTHING),
        (Consent(gpp="DBABTA~1YNN", gpp_sid=(6,)), CONSENT_ALL),
        (Consent(gpp="DBABTA~1YYN", gpp_sid=(6,)), NO_ADS),
        (Consent(gpp="DBABTA~1YYN", gpp_sid=(-1,)), CONSENT_ALL),
        (Consent(gpp="DBABTA~1Y", gpp_sid=(6,)), NOTHING),
        (Consent(gpp="DBABTA~1YNN", gpp_sid=(7,)), NOTHING),
        (Consent(gpp=f"{USNAT}~{us_national()}", gpp_sid=(7,)), CONSENT_ALL),
        (Consent(gpp=f"{USNAT}~{us_national(sale=1)}", gpp_sid=(7,)), NO_ADS),
        (Consent(gpp=f"{USNAT}~{us_national(sharing=1)}", gpp_sid=(7,)), NO_ADS),
        (Consent(gpp=f"{USNAT}~{us_national(targeted=1)}", gpp_sid=(7,)), NO_ADS),
        (Consent(gpp=f"{USNAT}~{us_national(child=1)}", gpp_sid=(7,)), NOTHING),
        (Consent(gpp=f"{USNAT}~{us_national()}.YA", gpp_sid=(7,)), NO_ADS),
        (Consent(gpp="DBABVg~BVVVVVVg.YA", gpp_sid=(12,)), NO_ADS),
        (Consent(gpp="DBABDA~BPXuQIAPXuQIAAfKABENB-CgAAAAAAAAAAAAAAAA", gpp_sid=(5,)), NOTHING),
        (Consent(gpp="DBABMA~" + tcf(ALL_PURPOSES), gpp_sid=(2,)), CONSENT_ALL),
        (Consent(gdpr=1, gpp="DBABMA~" + tcf(ALL_PURPOSES), gpp_sid=(2,)), CONSENT_ALL),
        (Consent(gdpr=1, gpp="DBABTA~1YNN", gpp_sid=(6,)), NOTHING),
    ],
)
def test_what_a_consent_object_allows(consent: Consent, bits: int) -> None:
    assert JUDGE.bits(consent) == bits
    assert JUDGE.bits(consent) == bits  # remembered


@pytest.mark.parametrize("default", [NOTHING, CONSENT_ALL])
def test_silence_is_what_the_setting_says(default: int) -> None:
    judge = Judge(default)
    assert judge.bits(None) == judge.bits(Consent()) == default
    assert judge.bits(Consent(lmt=1)) == default & NO_ADS


def test_published_strings_read_as_published() -> None:
    assert gpp_sections("DBACNY~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA~1YNN") == {
        2: "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA",
        6: "1YNN",
    }
    assert list(gpp_sections("DBABBg~BAAAAACA")) == [8]
    assert tcf_bits("CO5VTlWO5VTlWH1AAAENAwCwAIAAAAAAAIAAAAoAAAAA.YAAAAAAAAAA") == CONSENT_STORE
    # purposes 1, 5 and 7; vendors 4, 11, 16 and 28
    text = "CO27L5XO27L5XDbACBENAtCAAIoAABQAAAIYAOBAhABAB5IAAAAA"
    assert [tcf_bits(text, vendor) for vendor in (4, 5, 28)] == [3, 0, 3]


def test_of_event_and_request_the_stricter_wins() -> None:
    assert strictest(CONSENT_ALL, NO_ADS, CONSENT_STORE | CONSENT_ADS) == CONSENT_STORE


@given(st.text(max_size=60))
def test_any_text_allows_nothing_or_is_a_consent_string(text: str) -> None:
    for consent in (Consent(gdpr=1, tcf=text), Consent(gpp=text, gpp_sid=(2, 6, 7))):
        assert JUDGE.bits(consent) in range(16)
    try:
        tcf_bits(text)
    except UnreadableConsent:
        assert JUDGE.bits(Consent(gdpr=1, tcf=text)) == NOTHING


@given(st.sets(st.integers(1, 24)), st.integers(1, 60))
def test_a_string_cut_short_never_allows_more(purposes: set[int], length: int) -> None:
    whole = tcf(purposes, vendors({1, 2}))
    assert JUDGE.bits(Consent(gdpr=1, tcf=whole[:length])) in (NOTHING, JUDGE.bits(Consent(gdpr=1, tcf=whole)))


def test_the_memory_of_strings_is_bounded() -> None:
    judge = Judge(default=NOTHING)
    for n in range(10_000):
        judge.bits(Consent(gdpr=1, tcf=str(n)))
    assert len(judge._seen) <= 4_096
