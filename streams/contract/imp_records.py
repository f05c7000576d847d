"""What a request says of ad slots and of where they are, in the names of OpenRTB 2.6 and with its meanings.

Only what is read is a field; anything else is ignored, as everywhere. A value of the wrong type, or a longer list than
is allowed, makes the whole request unreadable: its dead letter names the field. Money is in units, not micros, and per
thousand impressions, as OpenRTB has it.
"""

from typing import Annotated, Any

from msgspec import Meta

from streams.contract.fields import Flag, Id, Number, Record, Text, Word

Words = Annotated[tuple[Word, ...], Meta(max_length=64)] | None
Blocks = Annotated[tuple[Word, ...], Meta(max_length=4_096)] | None
"""Blocked categories, domains or apps."""
Codes = Annotated[tuple[int, ...], Meta(max_length=64)] | None
Px = Annotated[int, Meta(ge=0, le=100_000)] | None
Seconds = Annotated[int, Meta(ge=0, le=86_400)] | None
Small = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None
Currency = Annotated[str, Meta(max_length=8)]
KeyValues = Annotated[dict[Word, Word | Annotated[tuple[Word, ...], Meta(max_length=64)]], Meta(max_length=64)] | None
"""A publisher's own key-values: at most 64 keys, each with a word or up to 64."""


class Format(Record):
    """A size that a banner may have, in pixels."""

    w: Px = None
    h: Px = None


class Banner(Record):
    """A banner slot; `format` are its sizes, or `w` and `h` where there is one."""

    format: Annotated[tuple[Format, ...], Meta(max_length=64)] | None = ()
    w: Px = None
    h: Px = None
    mimes: Words = ()
    btype: Codes = ()
    battr: Codes = ()
    pos: Small = None
    api: Codes = ()


class Video(Record):
    """A video slot. Seconds; `startdelay` 0 is pre-roll, above it mid-roll, -1 and -2 generic mid- and post-roll.

    `podid`, `podseq`, `slotinpod`, `rqddurs`, `poddur` and `maxseq` are of ad breaks: they are kept for these, and each
    imp is sold by itself until then.
    """

    mimes: Words = ()
    minduration: Seconds = None
    maxduration: Seconds = None
    startdelay: Small = None
    protocols: Codes = ()
    w: Px = None
    h: Px = None
    plcmt: Small = None
    linearity: Small = None
    skip: Flag = None
    skipmin: Seconds = None
    skipafter: Seconds = None
    pos: Small = None
    battr: Codes = ()
    api: Codes = ()
    mincpmpersec: Number | None = None
    podid: Id | None = None
    podseq: Small = None
    slotinpod: Small = None
    rqddurs: Codes = ()
    poddur: Seconds = None
    maxseq: Small = None


class Audio(Record):
    """An audio slot; names as in `Video`."""

    mimes: Words = ()
    minduration: Seconds = None
    maxduration: Seconds = None
    startdelay: Small = None
    protocols: Codes = ()
    battr: Codes = ()
    api: Codes = ()
    mincpmpersec: Number | None = None
    podid: Id | None = None
    podseq: Small = None
    slotinpod: Small = None
    rqddurs: Codes = ()
    poddur: Seconds = None
    maxseq: Small = None


class Native(Record):
    """A native slot; `request` is a markup of its own, which is passed on and not read."""

    request: Text = ""
    ver: Word | None = None
    api: Codes = ()
    battr: Codes = ()


class DealTerms(Record):
    """A deal that may be served here. `at`: 1 first price, 2 second price, 3 `bidfloor` is the price."""

    id: Id
    bidfloor: Number = 0.0
    bidfloorcur: Currency = "USD"
    at: Small = None
    guar: Flag = None
    wseat: Words = ()
    wadomain: Words = ()
    mincpmpersec: Number | None = None


class Pmp(Record):
    """Deals of a slot; with `private_auction` nobody else may bid."""

    private_auction: Flag = None
    deals: Annotated[tuple[DealTerms, ...], Meta(max_length=64)] | None = ()


class Imp(Record):
    """An ad slot to fill. `bcat`, `badv`, `battr` and `keyvalues` add to those of its request.

    `exp` is how many seconds may pass from the decision to the impression.
    """

    id: Id
    tagid: Id | None = None
    instl: Flag = 0
    bidfloor: Number = 0.0
    bidfloorcur: Currency = "USD"
    secure: Flag = 1
    rwdd: Flag = 0
    video: Video | None = None
    banner: Banner | None = None
    bcat: Blocks = ()
    badv: Blocks = ()
    battr: Codes = ()
    audio: Audio | None = None
    native: Native | None = None
    pmp: Pmp | None = None
    exp: Seconds = None
    keyvalues: KeyValues = None


class Segment(Record):
    """A segment that a person is in. OpenRTB's `id` and `name`; either is what line items may ask for."""

    id: Id | None = None
    name: Word | None = None
    value: Word | None = None


class Data(Record):
    """Segments of one source."""

    id: Id | None = None
    name: Word | None = None
    segment: Annotated[tuple[Segment, ...], Meta(max_length=256)] | None = ()


class User(Record):
    """Who it is, as the publisher says. `yob` and `gender` are deprecated in OpenRTB and not read.

    `eids` are passed on, never read. Segments are used only where the profile may be.
    """

    id: Id | None = None
    eids: Annotated[tuple[dict[str, Any], ...], Meta(max_length=64)] | None = ()
    data: Annotated[tuple[Data, ...], Meta(max_length=32)] | None = ()
    consent: Annotated[str, Meta(max_length=16_384)] | None = None


class Geo(Record):
    """Where. `utcoffset` is in minutes; `lat` and `lon` are used only where the profile may be."""

    country: Word | None = None
    region: Word | None = None
    city: Word | None = None
    lat: Number | None = None
    lon: Number | None = None
    utcoffset: Small = None


class Device(Record):
    """On what. `devicetype` is a number of AdCOM's list. Addresses, user agents and advertising ids are not read."""

    devicetype: Small = None
    os: Word | None = None
    language: Word | None = None
    lmt: Flag = None
    geo: Geo | None = None


class Content(Record):
    """What is played or read around the slot. `len` is in seconds; without `cattax`, `cat` is of taxonomy 1."""

    id: Id | None = None
    title: Text | None = None
    series: Text | None = None
    season: Word | None = None
    episode: Small = None
    genre: Text | None = None
    genres: Codes = ()
    cat: Words = ()
    cattax: Small = None
    contentrating: Word | None = None
    livestream: Flag = None
    len: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    language: Word | None = None
    keywords: Text | None = None
    kwarray: Words = ()


class Channel(Record):
    """The site or app that has the slot: `domain` of a site, `bundle` of an app."""

    id: Id | None = None
    name: Text | None = None
    domain: Id | None = None
    bundle: Id | None = None
    cat: Words = ()
    cattax: Small = None
    content: Content | None = None
    keywords: Text | None = None
    kwarray: Words = ()


class Regs(Record):
    """Which rules hold, and the consent strings that are not the person's own (`User.consent`)."""

    gdpr: Flag = None
    us_privacy: Annotated[str, Meta(max_length=16)] | None = None
    gpp: Annotated[str, Meta(max_length=16_384)] | None = None
    gpp_sid: Codes = ()
    coppa: Flag = None
