import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.configuration import SettingsError, load_settings, schema, service_links
from streams.settings import Settings
from streams.worker.stores import user_store
from tests.fuzzing import fuzz

SECRET = "hunter2"
USER = f"u:{SECRET}"


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as error:
        load_settings(environ={f"MARQUEE_{name}": value for name, value in environ.items()})
    said = str(error.value)
    assert SECRET not in said
    assert all(line.isprintable() for line in said.splitlines())
    return said


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("k:9092", "k:9092"),
        ("kafka_1.docker", "kafka_1.docker:9092"),
        ("a:1, b:2 ,c", "a:1,b:2,c:9092"),
        ("[::1]:29092,10.0.0.1:1", "[::1]:29092,10.0.0.1:1"),
        ("[2001:DB8::0:1]", "[2001:db8::1]:9092"),
    ],
)
def test_brokers_are_read_as_they_are_meant(given: str, read: str) -> None:
    assert load_settings(environ={"MARQUEE_KAFKA__BOOTSTRAP": given}).kafka.bootstrap == read


@pytest.mark.parametrize(
    "value",
    [
        *('"k:9092"', "'k:9092'", "k:9092\r", "k:9092\n", " k:9092", "k:9092 # ten", "k 1:9092", "k:9092;l:9092"),
        *("", "k:", "k:0", "k:65536", "k:port", ":9092", "k:1,", ",k:1", "k:1,,l:2", "k:９", "k:+1", "http://k.test:1"),
        *("PLAINTEXT://k:1", "::1", "::1:9092", "[::1", "[k]:1", "[::1]9092", "999.1.1.1:1", "-k:1", "k..l:1", "ü:1"),
        *("k" * 64 + ":1", f"u:{SECRET}@k:9092", "k:9092/topic", "\ufeffk:1", "k\u200b:1", "k:9092\udc80"),
    ],
)
def test_brokers_that_cannot_be_reached_by_that_name_are_refused(value: str, tmp_path: Path) -> None:
    if value:  # an empty variable is one that is not set
        assert "kafka.bootstrap = " in refusal(KAFKA__BOOTSTRAP=value)
        assert "allowed: host:port, several separated by commas" in refusal(KAFKA__BOOTSTRAP=value)
    file = tmp_path / "m.toml"
    with contextlib.suppress(UnicodeEncodeError):  # half a character cannot be in a file
        file.write_text(f"[kafka]\nbootstrap = {json.dumps(value, ensure_ascii=False)}\n", encoding="utf-8")
        with pytest.raises(SettingsError, match=r"bootstrap|TOML"):
            load_settings(file, {})


@pytest.mark.parametrize(
    "value",
    [
        *("redis://r", "redis://r:6379", "redis://[::1]:6379/3", "rediss://r.example:6380/0", "unix:///run/redis.sock"),
        *("redis://r/0?db=4", f"rediss://r/0?ssl_ca_certs={__file__}", "unix:///run/redis.sock?db=2"),
    ],
)
def test_a_redis_server_is_read(value: str) -> None:
    settings = load_settings(environ={"MARQUEE_REDIS__URL": value, "MARQUEE_REDIS__PASSWORD": SECRET})
    assert settings.redis.url == value
    user_store(settings).close()  # its client takes it as well


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("redis+cluster://r:1/0", "a cluster"),
        ("redis-sentinel://r:1/0", "Sentinel"),
        ("rediss+sentinel://r:1,s:1/mymaster", "Sentinel"),
        ("valkey://r:1/0", "redis://"),
        ("http://r.test:1", "redis://"),
        ("r:6379", "redis://"),
        ("redis:/r", "no name"),
        ("redis://", "no name"),
        ("redis://:6379/0", "no name"),
        ("redis://r:0/0", "port"),
        ("redis://r:70000/0", "port"),
        ("redis://r:x/0", "port"),
        ("redis://r:1,s:2/0", "brackets"),
        ("redis://[::1/0", "no address"),
        ("redis://::1/0", "brackets"),
        ("redis://r/abc", "number of a database"),
        ("redis://r/-1", "number of a database"),
        ("redis://r/0/1", "number of a database"),
        ("redis://r/0#x", "number of a database"),
        ("redis://r/0?db=x", "number of a database"),
        ("redis://r/0?timeout=1", "'timeout'"),
        ("rediss://r/0?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs cannot be read (FileNotFoundError)"),
        (f"redis://r/0?ssl_ca_certs={__file__}", "'ssl_ca_certs'"),
        ("rediss://r/0?ssl_keyfile=", "ssl_keyfile cannot be read"),
        (f"redis://r/0?password={SECRET}", "redis.password"),
        (f"redis://:{SECRET}@r/0", "redis.password"),
        (f"redis://u:{SECRET}/x@r/0", "redis.password"),
        (f"redis://u:{SECRET}?x@r/0", ""),
        (f"u:{SECRET}@r:1", "redis://"),
        (f"redis://u:[{SECRET}@r/0", ""),
        ("redis://user@r/0", "redis.username"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix:///", "three slashes"),
        ("redis://r:6379/0\r", "'\\r'"),
        ('"redis://r:6379/0"', "quotation marks"),
    ],
)
def test_what_is_no_redis_server_is_refused(value: str, said: str) -> None:
    found = refusal(REDIS__URL=value)
    assert "redis.url = " in found
    assert said in found
    assert "allowed: redis://host:port/0" in found


@pytest.mark.parametrize("key", ["HTTP__HOST", "LEARNER__HOST"])
def test_a_host_to_listen_on_has_no_port(key: str) -> None:
    group, name = key.lower().split("__")
    for value, read in (("::", "::"), ("[::1]", "::1"), ("0.0.0.0", "0.0.0.0"), ("pod-1.local", "pod-1.local")):
        assert getattr(getattr(load_settings(environ={f"MARQUEE_{key}": value}), group), name) == read
    for value in ("127.0.0.1:80", "http://x.test", "*", "a b", "300.1.1.1", "1:2:3", "[::1]:80"):
        assert f"{group}.{name} = {value!r}: " in refusal(**{key: value})


def test_an_address_of_snapshots_is_one(tmp_path: Path) -> None:
    where = {"MARQUEE_LEARNER__PUBLIC_URL": "https://[::1]:81/snapshots"}
    assert load_settings(environ=where).learner.public_url == "https://[::1]:81/snapshots"
    for value in (
        "learner:81",
        "ftp://l",
        "http://",
        "http://l.test:x",
        f"http://{USER}@l.test",
        f"http://l.test?k={SECRET}",
    ):
        assert "learner.public_url = " in refusal(LEARNER__PUBLIC_URL=value)


@pytest.mark.parametrize("key", ["KAFKA__SSL_CA_FILE", "KAFKA__SSL_CERT_FILE", "KAFKA__SSL_KEY_FILE"])
def test_a_file_must_be_there(key: str, tmp_path: Path) -> None:
    name = key.lower().replace("__", ".")
    assert f"{name} = '{tmp_path}/gone': cannot be read (FileNotFoundError)" in refusal(**{key: f"{tmp_path}/gone"})
    assert f"{name} = '{tmp_path}': cannot be read (IsADirectoryError)" in refusal(**{key: str(tmp_path)})


def test_certificates_are_tried_where_settings_are_read(tmp_path: Path) -> None:
    key, certificate, locked = tmp_path / "key", tmp_path / "certificate", tmp_path / "locked"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", key]
    subprocess.run([*make, "-out", certificate], check=True, capture_output=True)
    lock = ["openssl", "rsa", "-aes128", "-passout", f"pass:{SECRET}", "-in", key, "-out", locked]
    subprocess.run(lock, check=True, capture_output=True)
    tls = {"KAFKA__SECURITY_PROTOCOL": "SSL", "KAFKA__SSL_CERT_FILE": str(certificate)}
    good = {**tls, "KAFKA__SSL_CA_FILE": str(certificate), "KAFKA__SSL_KEY_FILE": str(locked)}
    good["KAFKA__SSL_KEY_PASSWORD"] = SECRET
    assert load_settings(environ={f"MARQUEE_{name}": value for name, value in good.items()})
    (tmp_path / "empty").write_text("")
    assert f"ssl_ca_file {tmp_path}/empty" in refusal(**{**good, "KAFKA__SSL_CA_FILE": str(tmp_path / "empty")})
    wrong = [{"KAFKA__SSL_KEY_FILE": str(certificate)}, {"KAFKA__SSL_KEY_PASSWORD": "x"}]
    for change in (*wrong, {"KAFKA__SSL_KEY_FILE": str(tmp_path / "empty")}):
        assert f"ssl_cert_file {certificate}" in refusal(**{**good, **change})
    assert "do not go together" in refusal(**tls, KAFKA__SSL_KEY_FILE=str(locked))


def test_folders_are_named_in_full() -> None:
    for value in ("~/snapshots", "'var'", "var\r", "."):
        assert "learner.snapshot_dir = " in refusal(LEARNER__SNAPSHOT_DIR=value)


def test_a_secret_with_a_line_end_is_refused_and_one_in_a_file_is_read(tmp_path: Path) -> None:
    assert "redis.password = **********: holds '\\n'" in refusal(REDIS__PASSWORD=f"{SECRET}\n")
    assert "redis.password = **********: the quotation marks" in refusal(REDIS__PASSWORD=f"'{SECRET}'")
    file = tmp_path / "password"
    for content in (f"{SECRET}\r\n", f"'{SECRET}'\n"):
        file.write_bytes(content.encode())
        password = load_settings(environ={"MARQUEE_REDIS__PASSWORD": f"file:{file}"}).redis.password
        assert password is not None
        assert password.get_secret_value() == content.strip()
    for content in ("", "\n", f"{SECRET}\n{SECRET}", f"{SECRET}\0"):
        file.write_text(content)
        assert "must hold one line of text" in refusal(REDIS__PASSWORD=f"file:{file}")
    file.write_bytes(b"\xff" + SECRET.encode())
    assert "cannot be read (UnicodeDecodeError)" in refusal(REDIS__PASSWORD=f"file:{file}")


def test_everything_that_is_wrong_is_told_at_once() -> None:
    said = refusal(KAFKA__BOOTSTRAP="'a'", SLATES__REPLY_TOPICS="a,b", SLATES__SIZE="10 # ten", SLATES__SISE="1")
    assert "slates.reply_topics = 'a,b': lists are written as JSON" in said
    assert [line.partition(" = ")[0] for line in said.splitlines()][-1] == "slates.size"
    assert len(said.splitlines()) == 4


def test_a_file_from_windows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_bytes(b'\xef\xbb\xbf[kafka]\r\nbootstrap = "k:1"\r\n')
    assert load_settings(file, {}).kafka.bootstrap == "k:1"
    file.write_text("a = " + "[" * 100_000)
    with pytest.raises(SettingsError, match="cannot be read as TOML"):
        load_settings(file, {})


LINKS = {
    "MARQUEE_PORT": "tcp://10.0.48.109:6066",
    "MARQUEE_SERVICE_HOST": "10.0.48.109",
    "MARQUEE_SERVICE_PORT": "6066",
    "MARQUEE_SERVICE_PORT_HTTP_METRICS": "6066",
    "MARQUEE_PORT_6066_TCP": "tcp://10.0.48.109:6066",
    "MARQUEE_PORT_6066_TCP_ADDR": "10.0.48.109",
    "MARQUEE_PORT_6066_TCP_PORT": "6066",
    "MARQUEE_PORT_6066_TCP_PROTO": "tcp",
    "MARQUEE_PORT_53_UDP": "udp://10.0.48.109:53",
    "MARQUEE_WORKER_2_SERVICE_HOST": "fd00::6d",
    "MARQUEE_WORKER_2_PORT": "tcp://[fd00::6d]:6066",
    "MARQUEE_REDIS_PORT_6379_TCP_ADDR": "10.0.48.111",
}


def test_service_links_are_passed_over() -> None:
    assert service_links({**LINKS, "HOME": "/"}) == list(LINKS)
    assert load_settings(environ=LINKS) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "6066"),
        ("SERVICE_HOST", "worker"),
        ("KAFKA_BOOTSTRAP", "10.0.0.1:9092"),
        ("KAFKA_BOOTSTRAP", "tcp://10.0.0.1:9092"),
        ("HTTP_PORT", "6066"),
        ("HTTP__PROT", "6066"),
        ("HTTP__SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_a_misspelling_that_looks_like_a_service_link_is_refused(name: str, value: str) -> None:
    assert f"MARQUEE_{name}: unknown setting" in refusal(**{name: value})


KEYS = [f"{group}.{key}" for group in ("kafka", "redis", "http", "learner", "slates") for key in ("url", "host", "x")]
KEYS += ["kafka.bootstrap", "learner.public_url", "learner.snapshot_dir", "kafka.ssl_ca_file", "redis.password"]
KEYS += ["slates.reply_topics", "slates.size", "slates.objectives.engage", "topics.events", "consent.default", "seed"]
PIECES = ["redis://", "http://", "file:", "[", "]", "::1", ":", "@", "/", "?", "#", ",", "%", "a.b", "9092", "0", "\r"]
VALUES = st.text(max_size=12) | st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=8).map("".join)
NAMES = st.sampled_from(KEYS) | st.from_regex(r"[a-z_.]{0,9}", fullmatch=True)


def settles(file: Path | None, environ: dict[str, str]) -> None:
    """Settings, or lines that say what is wrong; nothing else."""
    said = ""
    try:
        load_settings(file, environ)
    except SettingsError as error:
        said = str(error)
    assert all(line.isprintable() and len(line) < 700 for line in said.split("\n")), said


@fuzz
@given(st.dictionaries(NAMES, VALUES, max_size=4))
@example({"redis.url": "redis://[v1.x]/0"})
@example({"redis.url": "redis://℀/0"})
def test_fuzz_whatever_the_environment_holds_is_read_or_refused_in_words(found: dict[str, str]) -> None:
    settles(None, {f"MARQUEE_{key.upper().replace('.', '__')}": value for key, value in found.items()})


SCALARS = VALUES | st.integers() | st.floats() | st.booleans()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@fuzz
@given(st.dictionaries(NAMES, JSON, max_size=4), st.binary(max_size=20))
def test_fuzz_whatever_the_file_holds_is_read_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, object], rest: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in found.items()]
    for end in (b"", rest):
        file.write_bytes("\n".join(lines).encode() + b"\n" + end)
        settles(file, {})


def test_every_address_is_parsed_and_every_path_is_looked_at() -> None:
    words = ("host", "url", "bootstrap", "port", "file", "dir")
    for group in schema()["$defs"].values():
        for name, leaf in group["properties"].items():
            if name.rpartition("_")[2] in words:
                leaf = next((choice for choice in leaf.get("anyOf", ()) if choice["type"] != "null"), leaf)
                assert "rule" in leaf or leaf["type"] == "integer", name
