import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from streams.configuration import (
    HIDDEN,
    REMOVED,
    SettingsError,
    describe,
    load_settings,
    require_consent_default,
    schema,
    show,
)
from streams.settings import TOPIC_NAMES, Consent, Kafka, Redis, Settings, Topics

CANARY = "hunter2-canary"


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as error:
        load_settings(environ={f"MARQUEE_{name}": value for name, value in environ.items()})
    return str(error.value)


def test_defaults_need_neither_environment_nor_file() -> None:
    settings = load_settings(environ={"PATH": "/bin"})
    assert settings == Settings()
    assert settings.topics.name("events") == "marquee.events.v1"
    assert settings.topics.dead_letters("events") == "marquee.events.v1.dlq"


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "marquee.toml"
    file.write_text('seed = 7\n[slates]\nsize = 5\nsurface = "kids"\n[slates.objectives]\nengage = 2\n')
    environ = {"MARQUEE_CONFIG": str(file), "MARQUEE_SLATES__SIZE": "6", "MARQUEE_SLATES__OBJECTIVES__COMPLETE": "1"}
    settings = load_settings(environ=environ)
    assert (settings.seed, settings.slates.size, settings.slates.surface) == (7, 6, "kids")
    assert (settings.slates.objectives.engage, settings.slates.objectives.complete) == (2, 1)


def test_an_unknown_variable_is_refused_with_the_nearest_key() -> None:
    assert refusal(BATCHING__MAX_BACH="1") == (
        "MARQUEE_BATCHING__MAX_BACH: unknown setting batching.max_bach; did you mean batching.max_batch?"
    )


def test_an_unknown_key_of_the_file_is_refused_with_the_nearest_key(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("[redis]\nbucket = 4\n")
    with pytest.raises(SettingsError, match=r"m\.toml: redis\.bucket: .* did you mean redis\.buckets\?"):
        load_settings(file, {})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("batching.shards", 2, "batching.shards was removed: run several worker processes to use more cores"),
        ("index.ef_search", 64, "index.ef_search was removed: index.nprobe is the breadth"),
        ("index.kind", "hnsw", "index.kind = hnsw was removed: ivf finds more"),
    ],
)
def test_what_was_removed_is_refused_with_what_replaces_it(tmp_path: Path, key: str, value: object, said: str) -> None:
    group, _, name = key.partition(".")
    variable = f"{group}__{name}".upper()
    assert refusal(**{variable: str(value)}).startswith(f"MARQUEE_{variable}: {said}")
    file = tmp_path / "m.toml"
    file.write_text(f"[{group}]\n{name} = {json.dumps(value)}\n")
    with pytest.raises(SettingsError, match=re.escape(f"m.toml: {key}: {said}")):
        load_settings(file, {})


def test_what_was_removed_is_not_a_setting_any_more() -> None:
    known = schema()["$defs"]
    for gone in REMOVED:
        key, _, value = gone.partition(" = ")
        group, _, name = key.partition(".")
        leaf = known[group.capitalize()]["properties"].get(name)
        assert leaf is None or (value and value not in leaf["enum"])


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("size: 4")
    with pytest.raises(SettingsError, match="cannot be read as TOML"):
        load_settings(file, {})
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read: No such file or directory"):
        load_settings(tmp_path / "absent.toml", {})
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, {})


def test_what_is_near_no_key_is_given_no_key() -> None:
    said = refusal(FOO__X="1")
    assert "did you mean" not in said
    assert "known groups: ads, batching" in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BATCHING__MAX_BATCH", "0", "batching.max_batch = '0': .*; allowed: 1 to 16384"),
        ("TOPICS__PARTITIONS", "12", "topics.partitions = '12': must be a power of two; allowed: a power of two"),
        ("EVENTS__LATENESS_S", "4096", "events.lateness_s = '4096': .*; allowed: 0 to 4095"),
        ("CONSENT__DEFAULT", "maybe", "consent.default = 'maybe': .*; allowed: grant, deny or unset"),
        ("LEARNER__TASTE_DECAY", "1", "allowed: above 0 to below 1"),
        ("OBSERVE__RATE", "nan", "observe.rate = 'nan'"),
        ("SLATES__SIZE", "2000", "slates.size = '2000': .*; allowed: 1 to 200"),
        ("HTTP__PORT", "http", "http.port = 'http': .*; allowed: 0 to 65535"),
    ],
)
def test_an_impossible_value_is_refused_with_key_value_and_range(name: str, value: str, said: str) -> None:
    assert re.search(said, refusal(**{name: value}))


def test_an_empty_variable_unsets_what_may_be_unset_and_is_refused_where_there_is_a_default() -> None:
    for key, leaf in leaves(Settings):
        said = ""
        try:
            load_settings(environ={f"MARQUEE_{key.upper().replace('.', '__')}": ""})
        except SettingsError as error:
            said = str(error)
        if key in ("policies", "ads.surfaces"):
            assert f"did you mean {key}.NAME." in said
            continue
        assert (f"{key} = '': " in said or f"{key} = {HIDDEN}: " in said) == (leaf is not None), key
    assert load_settings(environ={"MARQUEE_CONFIG": "", "MARQUEE_CACHE": ""}) == Settings()
    assert "did you mean kafka.bootstrap" in refusal(KAFKA__BOOTSTRP="")


def leaves(model: type[BaseModel], before: str = "") -> list[tuple[str, object]]:
    """Every key with its default."""
    found: list[tuple[str, object]] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += leaves(inner, f"{before}{name}.")
        else:
            found.append((before + name, field.get_default(call_default_factory=True)))
    return found


def test_whoever_cannot_choose_the_partitions_is_told_what_else_there_is() -> None:
    assert "topics of another count can be grown" in refusal(TOPICS__PARTITIONS="12")
    assert "topics of another count" not in refusal(REDIS__BUCKETS="12")


def test_settings_that_contradict_each_other_are_refused() -> None:
    assert "slates.size 20 is more than slates.candidates" in refusal(SLATES__CANDIDATES="10")
    assert "redis.buckets 4 is less than topics.partitions" in refusal(REDIS__BUCKETS="4")
    assert "two topics have the same name" in refusal(TOPICS__ADS="x", TOPICS__SLATES="x")
    assert "sasl_password" in refusal(KAFKA__SECURITY_PROTOCOL="SASL_SSL", KAFKA__SASL_USERNAME="u")


def test_a_secret_is_never_shown() -> None:
    environ = {
        "MARQUEE_REDIS__PASSWORD": CANARY,
        "MARQUEE_KAFKA__SASL_PASSWORD": CANARY,
        "MARQUEE_KAFKA__SSL_KEY_PASSWORD": CANARY,
    }
    settings = load_settings(environ=environ)
    assert settings.redis.password is not None
    assert settings.redis.password.get_secret_value() == CANARY
    assert CANARY not in repr(settings) + str(settings) + json.dumps(show(settings)) + settings.model_dump_json()


def test_a_refusal_does_not_quote_a_secret() -> None:
    said = refusal(REDIS__URL=f"redis://user:{CANARY}@host:1/0")
    assert "redis.password" in said
    assert CANARY not in said
    assert CANARY not in refusal(KAFKA__SASL_PASSWORD=CANARY, KAFKA__SECURITY_PROTOCOL="SASL_SSL")


def test_a_secret_can_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(CANARY + "\n")
    settings = load_settings(environ={"MARQUEE_REDIS__PASSWORD": f"file:{file}"})
    assert settings.redis.password is not None
    assert settings.redis.password.get_secret_value() == CANARY
    assert "password.gone' cannot be read (FileNotFoundError)" in refusal(REDIS__PASSWORD=f"file:{file}.gone")


def test_silence_about_consent_must_be_decided_before_a_start() -> None:
    with pytest.raises(SettingsError, match="allowed: grant, deny"):
        require_consent_default(Settings())
    assert require_consent_default(Settings(consent=Consent(default="deny"))) == "deny"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().slates.size = 3  # type: ignore[misc]


def test_constructing_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_SEED", "5")
    assert Settings().seed == 0
    assert load_settings().seed == 5


def test_every_setting_is_described() -> None:
    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                assert inner.__doc__
                walk(inner)
            else:
                assert field.description, f"{model.__name__}.{name}"

    walk(Settings)
    assert describe() == (Path(__file__).parents[2] / "docs/settings.md").read_text()


def test_what_is_shown_can_be_loaded_again() -> None:
    shown = {group: value for group, value in show(Settings()).items() if isinstance(value, dict)}
    assert Settings(**shown) == Settings()
    assert schema()["additionalProperties"] is False


def test_client_options_carry_credentials_only_where_they_are_used() -> None:
    plain = Kafka(sasl_username="u", sasl_password=CANARY).client_options()  # type: ignore[arg-type]
    assert not any("sasl" in name or "ssl" in name for name in plain)
    secured = Kafka(security_protocol="SASL_SSL", sasl_username="u", sasl_password=CANARY)  # type: ignore[arg-type]
    options = secured.client_options()
    assert options["sasl_plain_password"] == CANARY
    assert options["ssl_context"].check_hostname


@given(st.sampled_from(TOPIC_NAMES), st.from_regex(r"[a-z][a-z0-9.]{0,20}", fullmatch=True))
def test_every_topic_can_be_renamed(topic: str, name: str) -> None:
    settings = Settings(topics=Topics(**{topic: name}))  # type: ignore[arg-type]
    assert settings.topics.name(topic) == name  # type: ignore[arg-type]


@given(st.integers(0, 14))
def test_any_power_of_two_is_a_bucket_count(power: int) -> None:
    if 2**power >= 8:
        assert Settings(redis=Redis(buckets=2**power)).redis.buckets == 2**power


def test_a_policy_is_set_by_the_name_of_its_surface(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[policies.news]\nsize = 7\nsources = ["fresh", "trending"]\n')
    news = load_settings(file, {"MARQUEE_POLICIES__NEWS__REPEATS": "false"}).policies["news"]
    assert (news.size, news.sources, news.repeats) == (7, ("fresh", "trending"), False)
    assert "policies.news.size = '201'" in refusal(POLICIES__NEWS__SIZE="201")
    assert "did you mean policies.NAME.size?" in refusal(POLICIES__NEWS__SISE="3")
    assert "its size is more than its candidates" in refusal(POLICIES__NEWS__SIZE="200", SLATES__CANDIDATES="20")


def test_the_example_of_a_toml_file_loads(tmp_path: Path) -> None:
    text = '[kafka]\nbootstrap = "k:9092"\n[consent]\ndefault = "deny"\n[slates]\nreply_topics = ["a", "b"]\n'
    assert tomllib.loads(text)
    file = tmp_path / "m.toml"
    file.write_text(text)
    assert load_settings(file, {}).slates.reply_topics == ("a", "b")
    assert load_settings(environ={"MARQUEE_SLATES__REPLY_TOPICS": '["a"]'}).slates.reply_topics == ("a",)
    assert "lists are written as JSON" in refusal(SLATES__REPLY_TOPICS="a,b")


def test_a_snapshot_of_as_many_items_as_are_allowed_is_one_that_workers_take() -> None:
    assert "model.max_bytes is 4294967296" in refusal(LEARNER__MAX_ITEMS="16000000")
    enough = {"MARQUEE_LEARNER__MAX_ITEMS": "16000000", "MARQUEE_MODEL__MAX_BYTES": str(32 << 30)}
    assert load_settings(environ=enough).learner.max_items == 16_000_000
    assert "100 to 16000000" in refusal(LEARNER__MAX_ITEMS="17000000"), "an item's row is a number of 24 bits"
