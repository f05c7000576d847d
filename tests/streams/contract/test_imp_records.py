"""What a request says of ad slots: older bytes and OpenRTB's own are read, other types are refused with the field."""

from pathlib import Path

import msgspec
import pytest

from embeddings.events import CONSENT_ADS, CONSENT_ALL, Source
from streams.contract import imp_records as i
from streams.contract import records as r
from streams.contract.ad_records import AdDecision
from streams.contract.consent import NOTHING, Judge
from streams.contract.deadletters import Code
from streams.contract.openrtb import bid_request, bid_response
from streams.contract.parsing import Rules, read
from tests.streams.builders import Raw

GOLDEN = Path(__file__).parent / "golden"
FULL = r.Request(
    request_id="r1",
    imp=(
        i.Imp(
            id="1", tagid="top", instl=1, bidfloor=0.5, bidfloorcur="EUR", secure=1, rwdd=1, exp=30,
            video=i.Video(
                mimes=("video/mp4",), minduration=5, maxduration=30, startdelay=-1, plcmt=1, skip=1, pos=1, w=1280,
                h=720, mincpmpersec=0.02, podid="p", slotinpod=1, battr=(3,),
            ),
            banner=i.Banner(format=(i.Format(w=300, h=250),), mimes=("image/png",), battr=(1,)),
            audio=i.Audio(mimes=("audio/mp4",)), native=i.Native(request="{}", ver="1.2"),
            pmp=i.Pmp(private_auction=1, deals=(i.DealTerms(id="d1", bidfloor=2.5, bidfloorcur="EUR", at=3, guar=1),)),
        ),
    ),
    at=1, cur=("EUR",), tmax=120, bcat=("IAB25",), cattax=1, badv=("rival.example",), battr=(13,),
    user=i.User(
        id="u", eids=({"source": "x.example", "uids": [{"id": "e"}]},), consent="C",
        data=(i.Data(id="house", segment=(i.Segment(id="cars"),)),),
    ),
    device=i.Device(devicetype=3, os="tvOS", language="de", lmt=0, geo=i.Geo(country="DEU", utcoffset=120, lat=52.5)),
    site=i.Channel(
        domain="films.example",
        content=i.Content(
            title="A film", series="s", season="2", episode=3, genre="Drama", cat=("IAB1-5",), contentrating="12",
            livestream=0, len=5_400, language="de",
        ),
    ),
    regs=i.Regs(gdpr=1, us_privacy="1---", gpp="DB", gpp_sid=(7,), coppa=0),
    keyvalues={"section": ("film", "home"), "tier": "gold"},
)  # fmt: skip


def test_the_bytes_of_a_request_with_ads_are_read_and_written_as_ever() -> None:
    golden = (GOLDEN / "requests.imp.v1.json").read_bytes()
    assert r.decode_request(golden) == FULL
    assert r.encode(FULL) == golden


def test_what_openrtb_has_and_nobody_reads_is_ignored() -> None:
    video = b'{"mimes":["video/mp4"],"playbackmethod":[1]}'
    said = b'{"request_id":"r","imp":[{"id":"1","metric":[],"ext":{"a":1},"video":' + video + b"}]}"
    [imp] = r.decode_request(said).imp
    assert imp.video == i.Video(mimes=("video/mp4",))


@pytest.mark.parametrize(
    ("member", "where"),
    [
        ('"imp":[{"id":"1","banner":{"w":"300"}}]', "`$.imp[0].banner.w`"),
        ('"imp":[{"id":"1","bidfloor":"1.5"}]', "`$.imp[0].bidfloor`"),
        ('"imp":[{"id":"1","pmp":{"deals":[{"id":4}]}}]', "`$.imp[0].pmp.deals[0].id`"),
        ('"imp":[{"id":"1","video":{"mimes":"video/mp4"}}]', "`$.imp[0].video.mimes`"),
        ('"imp":[{"tagid":"no id"}]', "`id` - at `$.imp[0]`"),
        ('"user":{"data":[{"segment":{}}]}', "`$.user.data[0].segment`"),
        ('"device":{"geo":{"utcoffset":"60"}}', "`$.device.geo.utcoffset`"),
        ('"site":{"content":{"len":-1}}', "`$.site.content.len`"),
        ('"regs":{"gpp_sid":["7"]}', "`$.regs.gpp_sid[0]`"),
        ('"keyvalues":{"a":[1]}', "`$.keyvalues[...][0]`"),
    ],
)
def test_a_wrong_type_is_dead_lettered_with_the_field(member: str, where: str) -> None:
    record = Raw(7, f'{{"request_id":"r",{member}}}'.encode())
    good, [dead] = read(Source("requests", 0), [record], r.decode_request, Rules(judge=Judge(CONSENT_ALL)))
    assert not good
    assert dead.code in (Code.malformed, Code.missing_field)
    assert where in dead.detail


def test_publisher_key_values_are_bounded() -> None:
    def request(values: object) -> bytes:
        return msgspec.json.encode({"request_id": "r", "keyvalues": values})

    r.decode_request(request({f"k{n}": "x" * 128 for n in range(64)}))
    for values in ({f"k{n}": "x" for n in range(65)}, {"k": "x" * 129}, {"k": ["x"] * 65}, {"k" * 129: "x"}):
        with pytest.raises(msgspec.ValidationError):
            r.decode_request(request(values))


@pytest.mark.parametrize(
    ("said", "bits"),
    [
        ({}, CONSENT_ALL),
        ({"regs": {"coppa": 1}}, NOTHING),
        ({"regs": {"gdpr": 1}}, NOTHING),
        ({"regs": {"gdpr": 0}}, CONSENT_ALL),
        ({"regs": {"gdpr": 1}, "user": {"consent": "what?"}}, NOTHING),
        ({"device": {"lmt": 1}}, CONSENT_ALL & ~CONSENT_ADS),
        ({"regs": {"us_privacy": "1YYN"}}, CONSENT_ALL & ~CONSENT_ADS),
        ({"regs": {"us_privacy": "1YNN"}}, CONSENT_ALL),
        ({"regs": {"us_privacy": "1---"}}, CONSENT_ALL),
        ({"regs": {"us_privacy": "nonsense"}}, NOTHING),
        ({"regs": {"us_privacy": "1YYN"}, "consent": {"gdpr": 0}}, CONSENT_ALL & ~CONSENT_ADS),
        ({"consent": {"us_privacy": "1YYN"}}, CONSENT_ALL & ~CONSENT_ADS),
    ],
)
def test_consent_in_openrtbs_members_counts_like_any(said: dict[str, object], bits: int) -> None:
    request = r.decode_request(msgspec.json.encode({"request_id": "r"} | said))
    assert Judge(CONSENT_ALL).of_request(request) == bits


def test_flags_alone_grant_nothing_and_take_nothing_that_a_string_grants() -> None:
    denied = Judge(NOTHING)
    flags = r.decode_request(b'{"request_id":"r","regs":{"coppa":0},"device":{"lmt":0}}')
    assert denied.of_request(flags) == NOTHING
    flags.consent = r.Consent(gdpr=0)
    assert denied.of_request(flags) == CONSENT_ALL


def test_a_request_in_openrtb_says_the_taxonomy_and_the_consent() -> None:
    request = r.Request(
        request_id="r1", user_id="u9", imp=(i.Imp(id="1", banner=i.Banner(w=300, h=250), bcat=("IAB7",)),),
        consent=r.Consent(gdpr=1, tcf="C", lmt=True), app=i.Channel(bundle="b", cat=("IAB1",)),
    )  # fmt: skip
    assert bid_request(request) == {
        "id": "r1",
        "imp": [{"id": "1", "banner": {"w": 300, "h": 250}, "secure": 1, "ext": {"marquee": {"bcat": ["IAB7"]}}}],
        "cattax": 1,
        "app": {"bundle": "b", "cat": ["IAB1"], "cattax": 1},
        "regs": {"gdpr": 1},
        "user": {"id": "u9", "consent": "C"},
        "device": {"lmt": 1},
    }


def test_what_openrtb_has_a_name_for_comes_back_as_it_went_out() -> None:
    again = r.decode_request(msgspec.json.encode(bid_request(FULL) | {"request_id": "r1"}))
    ours = ("battr", "keyvalues")  # OpenRTB has them nowhere on a request
    assert {name: getattr(again, name) for name in again.__struct_fields__ if name not in ours} == {
        name: getattr(FULL, name) for name in FULL.__struct_fields__ if name not in ours
    } | {"site": msgspec.structs.replace(FULL.site, content=msgspec.structs.replace(FULL.site.content, cattax=1))}


def test_decisions_in_openrtb_are_bids_per_seat_in_units_per_thousand() -> None:
    won = AdDecision(
        decision_id="d1", imp_id="1", filled=True, campaign_id="c", creative="c/l/cr", crid="cr", advertiser="acme",
        adomain=("acme.example",), cat=("1001",), cattax=3, price_micros=2_500, currency="EUR", dealid="d", dur=15,
        decided_ms=1_000, expires_ms=31_000, behalf="Acme", transparency=({"domain": "a.example"},),
    )  # fmt: skip
    lost = AdDecision(decision_id="d2", imp_id="2", nbr=2)
    assert bid_response("r1", [won, lost]) == {
        "id": "r1",
        "cur": "EUR",
        "seatbid": [
            {
                "seat": "acme",
                "bid": [
                    {
                        "id": "d1", "impid": "1", "price": 2.5, "adid": "c/l/cr", "cid": "c", "crid": "cr",
                        "adomain": ["acme.example"], "cat": ["1001"], "cattax": 3, "dealid": "d", "dur": 15, "exp": 30,
                        "ext": {"dsa": {"behalf": "Acme", "transparency": [{"domain": "a.example"}]}},
                    }
                ],
            }
        ],
    }  # fmt: skip
