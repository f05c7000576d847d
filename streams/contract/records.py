"""The public contract: one struct per topic, and what each topic is.

Readers are tolerant: a field nobody knows is ignored, a value of an enumeration nobody knows reads as `unknown`, and
only what a record is useless without is required. Writers leave defaults out. Campaigns are in `campaigns`.
`docs/contract.md` says it in prose, and `tests/streams/contract/golden/` keeps the bytes of every version.

>>> decode_event(b'{"user_id":"u","item_id":"i","type":"play","event_time":1750000000000,"new":[]}').item_id
'i'
>>> encode(Counter(item_id="i", likes=2.0))
b'{"item_id":"i","likes":2.0}'
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from streams.contract.ad_records import AdDecision, AdStats
from streams.contract.fields import (
    UNKNOWN,
    Count,
    Flag,
    Id,
    Ms,
    Number,
    Record,
    Tag,
    Text,
    Whole,
    Word,
)
from streams.contract.imp_records import Blocks, Channel, Codes, Currency, Device, Imp, KeyValues, Regs, Small, User
from streams.settings import TOPIC_NAMES, Settings, TopicName

Degraded = Literal["none", "cached", "popular", "contextual"]
"""What a slate had to do without: nothing, a fresh one, the profile, the right to use the profile."""


class Consent(Record):
    """Consent as it was collected: raw strings, judged by `streams.contract.consent`, stored only as bits."""

    gdpr: Flag = None
    tcf: Annotated[str, Meta(max_length=16_384)] | None = None
    gpp: Annotated[str, Meta(max_length=16_384)] | None = None
    gpp_sid: tuple[int, ...] | None = ()
    coppa: Flag = None
    lmt: Flag = None
    us_privacy: Annotated[str, Meta(max_length=16)] | None = None


class Context(Record):
    """Where and how it happened. `age_limit` is a parental limit in years: nothing rated above it is offered."""

    surface: Word | None = None
    device: Word | None = None
    country: Word | None = None
    language: Word | None = None
    session_id: Id | None = None
    utcoffset: int | None = None
    age_limit: Annotated[int, Meta(ge=0, le=1_000)] | None = None


class Event(Record):
    """What a person did, on topic `events`. `value` is watch seconds, a quartile, a rating; what `type` implies.

    `type` is the name of an `embeddings.events.Action`, or `rating`, which reads as dislike or play by its value.
    `user_id` may be left to the record's key, `item_id` to slot events. `event_time` is epoch milliseconds.
    `decision_id` says that it is of an ad: the one that was decided for a slot. `ad` says so of what stands in `slot`
    of `slate_id`, from which its `decision_id` follows. `conversion_id` is what the advertiser calls a conversion: it
    counts for one ad of theirs, whichever events name.
    """

    type: Word
    event_time: Ms
    user_id: Id | None = ""
    item_id: Id | None = None
    value: Number | None = None
    event_id: Id | None = None
    slate_id: Id | None = None
    slot: int | None = None
    decision_id: Id | None = None
    ad: Flag = None
    conversion_id: Id | None = None
    context: Context | None = None
    consent: Consent | None = None


class Item(Record):
    """A piece of content, on topic `catalog`; null instead of it removes the item. Times are epoch milliseconds.

    `language` is what it is in; `languages` all in which it can be followed, spoken or by subtitles.
    `row_deleted`, `deleted`, `row_op` and `op` are how change capture removes a row where it writes no null.
    """

    item_id: Id = ""
    title: Text = ""
    text: Annotated[str, Meta(max_length=65_536)] = ""
    categories: Annotated[tuple[Word, ...], Meta(max_length=64)] = ()
    creators: Annotated[tuple[Id, ...], Meta(max_length=64)] = ()
    series: Id | None = None
    duration_s: Number | None = None
    language: Word | None = None
    year: int | None = None
    rating: Word | None = None
    territories: Annotated[tuple[Word, ...], Meta(max_length=256)] | None = ()
    surfaces: Annotated[tuple[Word, ...], Meta(max_length=64)] | None = ()
    languages: Annotated[tuple[Tag, ...], Meta(max_length=256)] | None = ()
    hidden: Flag = None
    blocked: Flag = None
    available_from: Ms | None = None
    available_until: Ms | None = None
    image: Annotated[str, Meta(max_length=87_384)] | None = None
    embedding: Annotated[tuple[Number, ...], Meta(max_length=4_096)] | None = None
    row_deleted: Flag | Word = msgspec.field(default=None, name="__deleted")
    deleted: Any = None
    row_op: Any = msgspec.field(default=None, name="__op")
    op: Any = None

    @property
    def gone(self) -> bool | None:
        """Whether the row was removed, in any case of the words; None where that cannot be told."""
        if (self.row_deleted, self.deleted, self.row_op, self.op) == (None, None, None, None):
            return False
        said = [str(word).strip().lower() for word in (self.row_deleted, self.deleted) if word is not None]
        if _GONE.intersection(said) or any(str(op).strip().lower() in _REMOVES for op in (self.row_op, self.op)):
            return True
        return False if _THERE.issuperset(said) else None


#: How flags are written that say a row is gone or there, and how the operation that removes one is.
_GONE = frozenset(("true", "1", "t", "y", "yes"))
_THERE = frozenset(("false", "0", "f", "n", "no", "none", "null", ""))
_REMOVES = frozenset(("d", "delete", "deleted"))


class Request(Record):
    """A slate asked for now, on topic `requests`; answered on `slates` with the same `request_id`.

    Everything from `imp` on but `consent` is OpenRTB's and of ads. `at` is 1 or 2, other numbers count as 2; `cur` are
    currencies that prices may be in, any without it; `cattax` is the taxonomy of `bcat`, 1 where it is not said;
    `tmax` stands for a `deadline_ms` that is not said. `regs`, `user.consent` and `device.lmt` count like `consent`.
    """

    request_id: Annotated[str, Meta(min_length=1, max_length=512)]
    user_id: Id | None = ""
    surface: Word | None = None
    n: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    context: Context | None = None
    exclude: Annotated[tuple[Id, ...], Meta(max_length=10_000)] = ()
    deadline_ms: Annotated[int, Meta(ge=0, le=600_000)] | None = None
    event_time: Ms | None = None
    personalised: bool = True
    imp: Annotated[tuple[Imp, ...], Meta(max_length=64)] = ()
    consent: Consent | None = None
    at: Small = None
    cur: Annotated[tuple[Currency, ...], Meta(max_length=64)] | None = ()
    tmax: Annotated[int, Meta(ge=0, le=600_000)] | None = None
    bcat: Blocks = ()
    cattax: Small = None
    badv: Blocks = ()
    bapp: Blocks = ()
    wseat: Blocks = ()
    bseat: Blocks = ()
    battr: Codes = ()
    user: User | None = None
    device: Device | None = None
    site: Channel | None = None
    app: Channel | None = None
    regs: Regs | None = None
    keyvalues: KeyValues = None


class SlateItem(Record):
    """One place of a slate.

    `propensity` is null where the place was not drawn by chance; `explored` is what chance put where ranking had
    another. What the reason names: `because` an item that the person took, `category` one that they take, `country`
    where the item is popular or trending.
    """

    item_id: str
    position: int
    score: float | None = None
    source: str = UNKNOWN
    reasons: tuple[str, ...] = ()
    propensity: float | None = None
    because: str | None = None
    category: str | None = None
    country: str | None = None
    explored: bool = False


class Slate(Record):
    """An answer, on topic `slates`. Every `_ms` is epoch milliseconds; `event_ms` is the latest event it knows of."""

    slate_id: str
    user_id: str
    trigger: str = UNKNOWN
    surface: str = ""
    request_id: str | None = None
    items: tuple[SlateItem, ...] = ()
    ads: tuple[AdDecision, ...] = ()
    model_version: str = ""
    index_version: str = ""
    policy: str = ""
    country: str | None = None
    age_limit: int | None = None
    language: str | None = None
    arm: str | None = None
    degraded: str | None = None
    ranked: bool = True
    expires_at: int = 0
    event_ms: int = 0
    received_ms: int = 0
    decoded_ms: int = 0
    folded_ms: int = 0
    retrieved_ms: int = 0
    ranked_ms: int = 0
    published_ms: int = 0
    topic: str = ""
    partition: int = -1
    offset: int = -1

    def __post_init__(self) -> None:
        self.trigger = _known(self.trigger, ("event", "request"))
        if self.degraded is not None:
            self.degraded = _known(self.degraded, get_args(Degraded))


class Trace(Record):
    """How a slate came about, on topic `traces`; enough to rank it again.

    `shown` is how often each candidate was shown without an answer, faded; empty where none was.

    Where a share of the places (`exploration`) is filled by chance: what is shown, in `places`, with `propensities`.
    Without it the first `counts["shown"]` candidates are shown.
    """

    slate_id: str
    user_id: str
    model_version: str = ""
    policy: str = ""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    filtered: dict[str, int] = msgspec.field(default_factory=dict)
    feature_names: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    features: tuple[tuple[float, ...], ...] = ()
    shown: tuple[float, ...] = ()
    exploration: float | None = None
    places: tuple[str, ...] = ()
    propensities: tuple[float, ...] = ()


class Counter(Record):
    """Absolute counts of one item, on topic `counters`, faded to event time `clock_s`; the last one written is true.

    `popularity` has short, middle, long and trending half-lives. `epoch` is the learner's life: counts of two lives are
    sums over different rows, and only those of the latest count.
    """

    item_id: Id = ""
    popularity: tuple[Count, ...] = ()
    trending: dict[str, float] = msgspec.field(default_factory=dict)
    likes: Count = 0.0
    dislikes: Count = 0.0
    shown: Count = 0.0
    clicked: Count = 0.0
    last_taken_s: Whole = 0
    first_seen_s: Whole = 0
    epoch: Whole = 0
    clock_s: Whole = 0
    events: Count = 0.0
    time_ms: Whole = 0


class ModelManifest(Record):
    """The live snapshot, on topic `models`: what it is called, where it lies, what it must hash to."""

    version: Annotated[str, Meta(max_length=18)]
    uri: str
    sha256: str
    kind: str = "snapshot"
    bytes: Whole = 0
    created_ms: Ms = 0
    events: int = 0
    items: int = 0
    dimensions: int = 0
    shapes: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


class Privacy(Record):
    """A wish or a receipt about one person, on topic `privacy`; nobody acts on it yet.

    The key is an HMAC of the user id; `user_id` travels only in a request, which its receipt replaces under that key.
    """

    action: str
    request_id: Id | None = None
    user_id: Id | None = None
    time_ms: Ms = 0
    until_ms: Ms | None = None
    counts: dict[str, int] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.action = _known(self.action, ("forget", "export", "receipt", "block"))


def _known(value: str, values: tuple[str, ...]) -> str:
    return value if value in values else UNKNOWN


encode = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(Event).decode
decode_item = msgspec.json.Decoder(Item).decode
decode_request = msgspec.json.Decoder(Request).decode
decode_slate = msgspec.json.Decoder(Slate).decode
decode_ad = msgspec.json.Decoder(AdDecision).decode
decode_ad_stats = msgspec.json.Decoder(AdStats).decode
decode_trace = msgspec.json.Decoder(Trace).decode
decode_counter = msgspec.json.Decoder(Counter).decode
decode_model = msgspec.json.Decoder(ModelManifest).decode
decode_privacy = msgspec.json.Decoder(Privacy).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """What a topic must be, for `topics plan|apply`. `config` holds the broker's settings as it spells them."""

    topic: str
    key: str
    partitions: int
    replication: int
    config: dict[str, str]


#: Topic: what its key is, whether only the last record of a key matters, whether we read it (so it has dead letters).
_SHAPES: dict[TopicName, tuple[str, Literal["delete", "compact"], bool]] = {
    "events": ("user_id", "delete", True),
    "catalog": ("item_id", "compact", True),
    "campaigns": ("campaign_id", "compact", True),
    "requests": ("user_id", "delete", True),
    "slates": ("user_id", "delete", False),
    "ads": ("user_id", "delete", False),
    "ad_stats": ("line item", "compact", False),
    "traces": ("user_id", "delete", False),
    "observations": ("partition of events", "delete", True),
    "counters": ("item_id", "compact", True),
    "models": ("kind", "compact", True),
    "privacy": ("HMAC of user_id", "compact", True),
}
#: Topics that every worker reads whole have one partition, so that their records have one order.
_ONE_PARTITION = frozenset({"catalog", "campaigns", "ad_stats", "counters", "models", "privacy"})


def topic_specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """Every topic of an installation with its dead letters. Topics keyed by user have equal partition counts."""
    return tuple(spec for name in TOPIC_NAMES for spec in _specs_of(name, settings))


def largest_record(settings: Settings) -> int:
    """What every topic takes in one piece: the largest value, with 1 MiB for key, headers and the batch around it."""
    return settings.events.max_bytes + 1_048_576


def _specs_of(name: TopicName, settings: Settings) -> list[TopicSpec]:
    topics, (key, cleanup, read) = settings.topics, _SHAPES[name]
    config = {"cleanup.policy": cleanup, "min.insync.replicas": str(topics.min_insync)}
    kept = {"retention.ms": str(int(topics.retention_h * 3_600_000))}
    room = {"max.message.bytes": str(largest_record(settings))}

    def spec(topic: str, partitions: int, extra: dict[str, str]) -> TopicSpec:
        return TopicSpec(
            topic=topic, key=key, partitions=partitions, replication=topics.replication, config=config | room | extra
        )

    partitions = 1 if name in _ONE_PARTITION else topics.partitions
    specs = [spec(topics.name(name), partitions, kept if cleanup == "delete" else {})]
    if read:
        specs.append(spec(topics.dead_letters(name), 1, kept | {"cleanup.policy": "delete"}))
    return specs
