"""Every knob of Marquee in one frozen, validated object: environment over TOML file over defaults.

`MARQUEE_KAFKA__BOOTSTRAP` is the key `kafka.bootstrap`; in TOML it is `bootstrap` under `[kafka]`. The file is named by
`MARQUEE_CONFIG` or `--config`. A secret may be written as `file:/run/secrets/name`. `streams.configuration` loads.

>>> Settings().topics.name("events")
'marquee.events.v1'
>>> Settings(topics=Topics(prefix="acme", slates="acme.homepage")).topics.name("slates")
'acme.homepage'
"""

import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams import addresses
from streams.ad_settings import Ads
from streams.addresses import File, Host, Port, like
from streams.half_lives import Group, HalfLife, HalfLives, Surface
from streams.http_settings import Http
from streams.policies import LanguageRule, Objectives, SurfacePolicy, with_built_in
from streams.secret_files import Secret
from streams.tracing_settings import Tracing

TopicName = Literal[
    "events",
    "catalog",
    "campaigns",
    "requests",
    "slates",
    "ads",
    "ad_stats",
    "traces",
    "observations",
    "counters",
    "models",
    "privacy",
]
TOPIC_NAMES: tuple[TopicName, ...] = get_args(TopicName)


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("must be a power of two")
    return value


Brokers = Annotated[str, AfterValidator(addresses.bootstrap), like("host:port, several separated by commas")]
RedisUrl = Annotated[
    str, AfterValidator(addresses.redis_url), like("redis://host:port/0, rediss://host:port/0 or unix:///path")
]
WebUrl = Annotated[str, AfterValidator(addresses.web_url), like("an http:// or https:// address")]
Folder = Annotated[Path, AfterValidator(addresses.folder), like("a folder")]
PowerOfTwo = Annotated[int, AfterValidator(_power_of_two), Field(json_schema_extra={"rule": "a power of two"})]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._-]+$")]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Kafka(Group):
    """The broker and how this process speaks to it."""

    bootstrap: Brokers = "localhost:9092"
    """Comma separated `host:port` of one or more brokers; IPv6 in brackets, without port 9092."""
    client_id: Name = "marquee"
    """Name of this client in broker logs and quotas."""
    group_prefix: Name = "marquee"
    """Consumer groups are `<group_prefix>.<lane>`."""
    instance_id: Name | None = None
    """Static membership: a name that this worker keeps over restarts and no other has."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Encryption and authentication of the connection; certificates and host names are always verified."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How SASL_* protocols authenticate."""
    sasl_username: str | None = None
    """User of SASL_* protocols."""
    sasl_password: Secret | None = None
    """Password of SASL_* protocols."""
    ssl_ca_file: File | None = None
    """Authority that signed the broker's certificate; without it the system's list."""
    ssl_cert_file: File | None = None
    """This client's certificate, for mutual TLS."""
    ssl_key_file: File | None = None
    """This client's private key, for mutual TLS."""
    ssl_key_password: Secret | None = None
    """Password of the private key."""
    session_timeout_s: float = Field(default=6, ge=1, le=60)
    """After this long without a heartbeat a worker is taken for dead."""
    rebalance_timeout_s: float = Field(default=20, ge=5, le=300)
    """How long a worker may take to let go of its partitions."""
    request_timeout_s: float = Field(default=30, ge=1, le=300)
    """Deadline of one request to a broker."""
    idempotent: bool = True
    """Whether producers are idempotent; only a broker that cannot do it, as the embedded one, needs `false`."""
    commit_interval_s: float = Field(default=0.5, ge=0.05, le=30)
    """How often acknowledged offsets are committed."""
    metadata_max_age_s: float = Field(default=5, ge=0.5, le=300)
    """How old the knowledge of topics may get: one that is deleted, made anew or grown is noticed within twice that."""

    @model_validator(mode="after")
    def _can_connect(self) -> "Kafka":
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError("sasl_username and sasl_password are needed by security_protocol SASL_*")
        if self.security_protocol.endswith("SSL"):
            self._ssl_context()
        return self

    def client_options(self) -> dict[str, Any]:
        """What every aiokafka client is constructed with: address, name, encryption, authentication."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "request_timeout_ms": int(self.request_timeout_s * 1000),
            "metadata_max_age_ms": int(self.metadata_max_age_s * 1000),
        }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        if self.sasl_password and self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.ssl_ca_file) if self.ssl_ca_file else None)
        except ssl.SSLError as error:
            raise ValueError(f"ssl_ca_file {self.ssl_ca_file} holds no certificate ({error.reason})") from None
        if self.ssl_cert_file:
            password = self.ssl_key_password.get_secret_value() if self.ssl_key_password else ""
            try:
                context.load_cert_chain(self.ssl_cert_file, self.ssl_key_file, password)
            except (ssl.SSLError, ValueError) as error:
                said = f"ssl_cert_file {self.ssl_cert_file}, ssl_key_file and ssl_key_password do not go together"
                raise ValueError(f"{said} ({getattr(error, 'reason', None) or type(error).__name__})") from None
        return context


class Topics(Group):
    """Names and shape of the topics; `<prefix>.<name>.v1` unless overridden one by one."""

    prefix: Name = "marquee"
    """First part of every topic name."""
    partitions: PowerOfTwo = Field(default=8, ge=1, le=1024)
    """Partitions of every topic keyed by user."""
    replication: int = Field(default=1, ge=1, le=15)
    """Replicas of each partition; production wants 3."""
    min_insync: int = Field(default=1, ge=1, le=15)
    """Replicas that must have a record before it counts as written; production wants 2."""
    retention_h: float = Field(default=168, gt=0, le=87_600)
    """How long topics that are not compacted keep their records."""
    create: bool = False
    """Create missing topics at start. For demos and tests; production runs `marquee topics apply`."""
    events: Name | None = None
    """Overrides the name of the events topic."""
    catalog: Name | None = None
    """Overrides the name of the catalog topic."""
    campaigns: Name | None = None
    """Overrides the name of the campaigns topic."""
    requests: Name | None = None
    """Overrides the name of the requests topic."""
    slates: Name | None = None
    """Overrides the name of the slates topic."""
    ads: Name | None = None
    """Overrides the name of the ads topic."""
    ad_stats: Name | None = None
    """Overrides the name of the ad-stats topic."""
    traces: Name | None = None
    """Overrides the name of the traces topic."""
    observations: Name | None = None
    """Overrides the name of the observations topic."""
    counters: Name | None = None
    """Overrides the name of the counters topic."""
    models: Name | None = None
    """Overrides the name of the models topic."""
    privacy: Name | None = None
    """Overrides the name of the privacy topic."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Topics":
        names = [self.name(topic) for topic in TOPIC_NAMES]
        if len(set(names)) < len(names):
            raise ValueError("two topics have the same name")
        if self.min_insync > self.replication:
            raise ValueError(f"min_insync {self.min_insync} is more than replication {self.replication}")
        return self

    def name(self, topic: TopicName) -> str:
        """The full name of a topic: its override, or `<prefix>.<topic>.v1`, in which `ad_stats` is `ad-stats`."""
        override: str | None = getattr(self, topic)
        return override or f"{self.prefix}.{topic.replace('_', '-')}.v1"

    def dead_letters(self, topic: TopicName) -> str:
        """The name of the topic that holds a topic's dead letters."""
        return f"{self.name(topic)}.dlq"


class Redis(Group):
    """Where user state lives."""

    url: RedisUrl = "redis://localhost:6379/0"
    """Server as `redis://`, `rediss://` (TLS) or `unix://`; no password in it."""
    username: str | None = None
    """ACL user, limited to the key prefix."""
    password: Secret | None = None
    """Password of that user."""
    prefix: str = Field(default="mq", pattern=r"^[A-Za-z0-9._-]{1,16}$")
    """First part of every key."""
    buckets: PowerOfTwo = Field(default=256, ge=1, le=16_384)
    """Hash slots that users spread over; at least the partition count, fixed for the life of the data."""
    timeout_s: float = Field(default=2, ge=0.05, le=60)
    """Deadline of one round trip; beyond it the batch is retried. Requests wait no longer than until their deadline."""
    state_ttl_s: int = Field(default=180 * 86_400, ge=60, le=10 * 365 * 86_400)
    """A user's state goes this long after the last event."""


class Batching(Group):
    """How many records a stage takes at once."""

    max_batch: int = Field(default=512, ge=1, le=16_384)
    """Most records in one batch."""
    depth: int = Field(default=1, ge=1, le=8)
    """Batches that may be un-acknowledged at a time."""
    fetch_wait_ms: int = Field(default=50, ge=1, le=5_000)
    """How long the broker may hold an empty fetch back."""
    stuck_after_s: float = Field(default=120, ge=1, le=3_600)
    """A batch un-acknowledged for this long ends the worker with its stacks."""
    give_up_after_s: float = Field(default=1_800, ge=1, le=86_400)
    """So does one that waits for this long for a store or brokers that are seen to be away."""


class Consent(Group):
    """What an event or request without a consent object is taken to allow."""

    default: Literal["grant", "deny"] | None = None
    """`grant` or `deny`; there is no default, a worker refuses to start without it."""
    vendor_id: int | None = Field(default=None, ge=1, le=65_535)
    """This service's id in the vendor list; when set, the vendor needs consent too, not the purposes alone."""


class Events(Group):
    """What is readable, and when an event belongs to."""

    max_bytes: int = Field(default=262_144, ge=1_024, le=16_777_216)
    """Larger records are dead-lettered without their value."""
    max_depth: int = Field(default=16, ge=4, le=256)
    """More nested objects and lists are dead-lettered."""
    max_future_ms: int = Field(default=86_400_000, ge=0, le=31 * 86_400_000)
    """An event further ahead of its record's publish time is dead-lettered; less is clamped to that."""
    lateness_s: int = Field(default=3_600, ge=0, le=4_095)
    """An event further behind its user's latest is counted late and not applied."""
    dislike_at_most: float = Field(default=2.0, ge=-1_000, le=1_000)
    """A `rating` event with a value up to this is a dislike, above it a play."""
    liked_from: float = Field(default=4.0, ge=-1_000, le=1_000)
    """`replay` and `evaluate` take a log's rating from this up for a like, below it for a play; 0 is no rating."""


class Slates(Group):
    """What is published, for whom, how large."""

    per_event: Literal["coalesced", "all", "requests"] = "coalesced"
    """A slate per user of a batch, per event, or only for requests."""
    size: int = Field(default=20, ge=1, le=200)
    """Items in a slate."""
    candidates: int = Field(default=200, ge=10, le=5_000)
    """Items ranked for a slate."""
    max_age_s: float = Field(default=600, ge=1, le=31 * 86_400)
    """A record older than this (publish time) is folded without slate."""
    ttl_s: int = Field(default=3_600, ge=1, le=31 * 86_400)
    """A slate expires this long after its publication."""
    surface: str = Field(default="home", min_length=1, max_length=64)
    """Surface of a slate that nobody asked for."""
    repeat_surfaces: tuple[str, ...] = ("continue_watching", "news")
    """Surfaces that may show what the person has seen."""
    trace_rate: Fraction = 0.01
    """Fraction of slates whose trace is published."""
    reply_topics: tuple[str, ...] = ()
    """Topics that a request's `reply_to` header may name."""
    deadline_ms: int = Field(default=200, ge=5, le=60_000)
    """A request that says no deadline gets this one."""
    language: LanguageRule = "any"
    """`match`: to who says a language, of items that say theirs only those in it are shown; `any`: it is not judged."""
    exploration: float = Field(default=0, ge=0, le=0.5)
    """Share of places that show, by chance, an item ranked below the slate: more is learned than of the best."""
    objectives: Objectives = Objectives()
    """Weights of the ranking objectives."""
    fatigue: float = Field(default=0.5, ge=0, le=100)
    """What was shown n times without an answer has its score divided by 1 + n times this; 0 = nothing sinks."""
    fatigue_limit: float = Field(default=8, ge=1, le=10_000)
    """What was shown so often without an answer stands below everything else."""
    fatigue_half_life_s: HalfLife = 3 * 86_400
    """Seconds of event time after which an impression without an answer weighs half."""


class Index(Group):
    """How candidate items are searched."""

    kind: Literal["auto", "exact", "ivf", "torch"] = "auto"
    """`auto` chooses by item count and device, and says what it chose."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the search runs."""
    nprobe: int = Field(default=16, ge=1, le=4_096)
    """Lists that an IVF search visits."""
    threads: int = Field(default=1, ge=1, le=256)
    """CPU threads of one search."""
    memory_mb: int = Field(default=1_024, ge=16, le=1_048_576)
    """Most memory an index may take on its device; several workers may share a GPU."""


class Retrieval(Group):
    """Sources of candidates beside the vector search."""

    neighbour_items: int = Field(default=20, ge=0, le=50)
    """Latest items whose exact neighbours are candidates."""
    trending: int = Field(default=20, ge=0, le=200)
    """Trending items among the candidates, or three for each place of a slate where these are more."""
    fresh: int = Field(default=10, ge=0, le=200)
    """New items among the candidates."""
    fresh_for_s: int = Field(default=7 * 86_400, ge=60, le=365 * 86_400)
    """How long an item counts as new after it opened, or came to the catalogue where it says no date."""


class Observe(Group):
    """What workers tell the learner."""

    enabled: bool = True
    """Tell it anything; false where snapshots come from elsewhere and no learner listens."""
    rate: Fraction = 1.0
    """Fraction of rows with a taken item that carry candidate features."""
    examples_per_s: int = Field(default=50, ge=0, le=1_000_000)
    """Most of them in a second: a busy worker tells a sample, a quiet one everything."""
    first_examples: int = Field(default=20_000, ge=0, le=10_000_000)
    """So many more a worker tells while the ranker is not taught, however many they are in a second."""
    at_event: Fraction = 0.5
    """Fraction of them told as of the event before, when slates are written; the others as of the take itself."""
    negatives: int = Field(default=32, ge=1, le=255)
    """Candidates not taken that are sent with a taken one."""
    shown: Fraction = 0.1
    """Fraction of slates, asked for or not, that are told with their items' features, for labels from impressions."""


class Learner(Group):
    """Embeddings and ranker, learned from observations."""

    dimensions: int = Field(default=64, ge=8, le=128)
    """Width of item and user vectors."""
    taste_decay: float = Field(default=0.9, gt=0, lt=1)
    """How much of the taste vector each new item keeps."""
    distance_power: float = Field(default=1, ge=0, le=4)
    """The k-th last item counts k to the minus this."""
    symmetry: Fraction = 0.5
    """Weight of a pair in the direction against time."""
    source_power: float = Field(default=0.5, ge=0, le=1)
    """Counts are divided by the popularity of the item before, to this power."""
    target_power: float = Field(default=0.3, ge=0, le=1)
    """Counts are divided by the popularity of the item after, to this power."""
    neighbours: int = Field(default=100, ge=10, le=1_000)
    """Neighbours kept per item."""
    max_items: int = Field(default=1_000_000, ge=100, le=16_000_000)
    """Items known at a time; beyond it those go that were taken least recently, first those of no catalogue."""
    refresh_events: int = Field(default=1_000, ge=10, le=10**8)
    """Events between two snapshots, at least."""
    refresh_min_s: float = Field(default=2, ge=0, le=86_400)
    """Seconds between two snapshots, at least; also at least ten times the last build."""
    counters_every_s: float = Field(default=1, ge=0.1, le=60)
    """How often changed item counters are published."""
    learning_rate: float = Field(default=0.003, gt=0, le=1)
    """Step of the ranker's shared weights."""
    attribution_s: int = Field(default=1_800, ge=1, le=7 * 86_400)
    """How long after an impression its outcome is awaited."""
    snapshot_dir: Folder = Path("var/snapshots")
    """Where snapshots are written."""
    checkpoint_dir: Folder = Path("var/checkpoints")
    """Where counts, weights and offsets are written together, whole now and then, else what changed."""
    checkpoint_every_s: float = Field(default=10, ge=0.1, le=3_600)
    """How often they are."""
    keep: int = Field(default=3, ge=1, le=100)
    """Snapshots and checkpoints kept, the newest ones."""
    keep_hours: int = Field(default=24, ge=0, le=24 * 365)
    """Beside them one snapshot of each of the last so many hours is kept, to go back to."""
    keep_days: int = Field(default=7, ge=0, le=3_650)
    """And one of each of the last so many days."""
    serve: bool = False
    """Announce snapshots as http addresses of this learner instead of files."""
    host: Host = "127.0.0.1"
    """Address the snapshots are served on."""
    port: Port = 0
    """Port the snapshots are served on; 0 takes a free one."""
    public_url: WebUrl | None = None
    """How workers reach that address, where it is not `http://<host>:<port>`."""

    def snapshot_bytes(self) -> int:
        """How large a snapshot becomes, by and large: two vectors and neighbours an item, and a name of 64 bytes."""
        return self.max_items * (8 * self.dimensions + 8 * self.neighbours + 84) + (16 << 20)


class Model(Group):
    """Which snapshot serves."""

    pinned_version: str | None = None
    """Serve this version whatever is announced later."""
    max_bytes: int = Field(default=4 << 30, ge=1 << 20, le=1 << 40)
    """Larger snapshots are neither announced nor taken; `learner.max_items` must fit."""


class Log(Group):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is written."""
    format: Literal["text", "json"] = "text"
    """Plain lines, or one JSON object per line."""


class Limits(Group):
    """What one bad deploy may do."""

    dead_letter_share: Fraction = 0.5
    """A partition of events pauses when clearly more than this share of what it brings is dead-lettered; 1: never."""
    attempts: int = Field(default=3, ge=1, le=100)
    """Tries of a batch that fails for an unknown reason, before it is taken apart and dead-lettered."""
    replays: int = Field(default=3, ge=1, le=100)
    """Times that a dead letter may be replayed."""


class Settings(BaseSettings):
    """All settings. Constructing it reads neither environment nor files: `streams.configuration.load_settings` does."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, env_prefix="MARQUEE_")

    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    redis: Redis = Redis()
    batching: Batching = Batching()
    consent: Consent = Consent()
    events: Events = Events()
    slates: Slates = Slates()
    ads: Ads = Ads()
    policies: dict[Surface, SurfacePolicy] = {}
    """By surface; `default` is that of every surface which has none of its own."""
    index: Index = Index()
    retrieval: Retrieval = Retrieval()
    observe: Observe = Observe()
    learner: Learner = Learner()
    half_lives: HalfLives = HalfLives()
    model: Model = Model()
    http: Http = Http()
    tracing: Tracing = Tracing()
    log: Log = Log()
    limits: Limits = Limits()
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seed of everything random: sampling, initial weights."""

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        if self.redis.buckets < self.topics.partitions:
            raise ValueError(f"redis.buckets {self.redis.buckets} is less than topics.partitions")
        if self.slates.size > self.slates.candidates:
            raise ValueError(f"slates.size {self.slates.size} is more than slates.candidates")
        if (size := self.learner.snapshot_bytes()) > self.model.max_bytes:
            what = "learner.max_items with learner.dimensions and learner.neighbours"
            raise ValueError(f"{what} make snapshots of {size} bytes, model.max_bytes is {self.model.max_bytes}")
        for name, policy in with_built_in(self.policies).items():
            if (policy.size or self.slates.size) > (policy.candidates or self.slates.candidates):
                raise ValueError(f"policies.{name}: its size is more than its candidates")
        for name, page in self.ads.surfaces.items():
            own = self.policies.get(name) or self.policies.get("default")
            size = (own and own.size) or self.slates.size
            if page.ad_load_max and not page.room(size):
                said = f"ad_load_max {page.ad_load_max} and first_slot {page.first_slot}"
                raise ValueError(f"ads.surfaces.{name}: {said} leave no place for an ad on slates of {size}")
        return self

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the constructor is given counts; `load_settings` joins environment and file."""
        return (init_settings,)
