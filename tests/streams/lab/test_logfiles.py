from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.lab.columns import UnreadableLog
from streams.lab.datasets import Log, read_log

AT_S = 1_767_225_600
HEAD = "user_id,item_id,timestamp\n"


def read(folder: Path, content: str | bytes, form: str = "csv", name: str = "log", on_error: str = "stop") -> Log:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_log(path, form, on_error="skip" if on_error == "skip" else "stop")


def refused(folder: Path, content: str | bytes, form: str = "csv", name: str = "log") -> str:
    with pytest.raises(UnreadableLog) as caught:
        read(folder, content, form, name)
    said = str(caught.value)
    assert said.isprintable(), "one line"
    return said.replace(str(folder / name), "FILE")


@pytest.mark.parametrize(
    ("form", "name", "content"),
    [
        ("csv", "log", f"{HEAD}a,m,{AT_S}\n"),
        ("csv", "log", f"{HEAD}a,m,{AT_S}"),
        ("csv", "log", f"USER_ID, Item_Id , timestamp\r\na, m, {AT_S}\r\n\r\n"),
        ("csv", "log", f"user_id\titem_id\ttimestamp\ra\tm\t{AT_S}\r"),
        ("csv", "log", f'"item_id";"user_id";"timestamp";""\n"m";"a";"{AT_S}";""\n'),
        ("csv", "log", f"n|user_id|item_id|timestamp\n1|a|m|{AT_S}\n"),
        ("jsonl", "log", f'\n{{"user_id":"a","item_id":"m","timestamp":{AT_S}}}\n\n'),
        ("jsonl", "log", f'{{"type":"play","value":1,"user_id":"a","item_id":"m","timestamp":{AT_S}}}\r'),
        ("jsonl", "log", f'{{"type":null,"value":null,"user_id":"a","item_id":"m","timestamp":{AT_S}}}'),
        ("csv", "log", f'"user_id","item_id","timestamp"\r\r"a","m",{AT_S}\r'),
        ("csv", "log", f"user_id,item_id,timestamp\r\r\na,m,{AT_S}\r\r\n"),
        ("jsonl", "log", f'{{"USER_ID":"a","Item_id":"m","timestamp":"{AT_S}","x":{{"y":[]}}}}'),
        ("movielens", "ratings.csv", f"userId,movieId,rating,timestamp\na,m,0,{AT_S}\n"),
        ("movielens", "ratings.csv", f'a,"m",0,{AT_S}\n'),
        ("movielens", "ratings.dat", f"a::m::0::{AT_S}\r\n"),
        ("movielens", "u.data", f"a\tm\t0\t{AT_S}\n"),
    ],
)
def test_one_event_however_it_is_written(tmp_path: Path, form: str, name: str, content: str) -> None:
    for text in (content, "\ufeff" + content):
        log = read(tmp_path, text, form, name)
        assert (log.user_R, log.item_R, log.rating_R.tolist(), log.time_s_R.tolist()) == (["a"], ["m"], [0], [AT_S])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{HEAD}zoé,m,1\n".encode("latin-1"), "FILE:2: byte 0xe9 at column 3 is not UTF-8; save the file as UTF-8"),
        ("用户,item_id\n".encode("gbk"), "FILE:1: byte 0x"),
        (HEAD.encode("utf-16"), "FILE: this is UTF-16"),
        (HEAD.encode("utf-32"), "FILE: this is UTF-32"),
        (b"\0\0\xfe\xff" + HEAD.encode("utf-32-be"), "FILE: this is UTF-32"),
        (HEAD.encode("utf-16-le"), "FILE: holds zero bytes, as UTF-16, UTF-32 and binary files do"),
        (f"{HEAD}{'x' * 200_000},m,1\n", f"FILE:2: '{'x' * 56}... has a field (field larger than field limit"),
        (f"{HEAD}{'x' * 100_000},m,1\n", f"FILE:2: user_id is '{'x' * 56}..., which has 100000 characters"),
        (b"\x1f\x8b\x08\0", "FILE: this is compressed with gzip"),
        (b"PK\x03\x04\0", "FILE: this is a zip archive or a spreadsheet"),
        (b"", "FILE: no events"),
        (HEAD, "FILE: no events"),
        (f"a,m,{AT_S}\n", f"FILE:1: the columns are 'a', 'm', '{AT_S}'; user_id and item_id are needed"),
        (
            "session_id,item_id\na,b\n",
            "FILE:1: the columns are 'session_id', 'item_id'; user_id and item_id are needed",
        ),
        ("user_id,item_id,USER_ID\na,b,c\n", "FILE: the column user_id is there 2 times"),
        (f"{HEAD}a,m\n", "FILE:2: 'a,m' has 2 fields; user_id, item_id, timestamp are wanted"),
        (f"{HEAD}a,m,1,2\n", "has 4 fields"),
        (f"{HEAD}a,m,1\n{HEAD}", "FILE:3: the header is here again"),
        (f"{HEAD}a,m,1\n\ufeffb,m,1\n", "FILE:3: begins with a byte order mark"),
        (f"{HEAD}a,m,1\nb,m,\n", "FILE:3: timestamp is missing; it may be left out only in all lines"),
        (
            f"{HEAD}a,m,{AT_S}\nb,m,{AT_S}\nc,m,{AT_S}000\n",
            "FILE:4: timestamp is 2026-01-01T00:00:00.000 in milliseconds",
        ),
        (f"{HEAD}a,m,2026-01-01\nb,m,9999-12-31\n", "FILE:3: timestamp is 9999-12-31T00:00:00.000, which is after"),
    ],
)
def test_a_csv_that_is_not_as_wanted_is_refused_by_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"user_id":"a"}]', "FILE:1: an array begins here; one JSON object a line is wanted (jq -c '.[]')"),
        ('{\n"user_id":"a"\n}\n', "FILE:1: '{' ends too early; one JSON object a line is wanted; line 2:"),
        ("7\n", "FILE:1: 7 is no object"),
        ("null\n", "FILE:1: null is no object"),
        ('{"user_id":"a","item_id":"m","type":"levitate"}', "FILE:1: type is 'levitate'; one of view, play, "),
        ('{"user_id":"a","item_id":"m","type":"dislike"}', "FILE:1: type is 'dislike'; one of view, play, "),
        ('{"user_id":"a","item_id":"m","type":7}', "FILE:1: type is 7; "),
        ('{"user_id":"a","item_id":"m","type":[]}', "FILE:1: type is an array []; "),
        ('{"user_id":"a","item_id":"m","value":"abc"}', "FILE:1: value is 'abc'; a finite number is wanted"),
        ('{"user_id":"a","item_id":"m","value":NaN}', "FILE:1: value is nan; "),
        ('{"user_id":"a","user_id":"b","item_id":"m"}', "FILE:1: 'user_id' is there twice"),
        ('{"user_id":"a","User_ID":"b","item_id":"m"}', "FILE:1: 'user_id' is there twice"),
        ('{"user_id":null,"item_id":"m"}', "FILE:1: user_id is missing; text or a whole number is wanted"),
        ('{"user_id":"a\\ud83d","item_id":"m"}', "half a character"),
        ('{"user_id":"a","item_id":"m","rating":NaN}', "rating is nan"),
        ('{"user_id":"a","item_id":"m","rating":' + "1" * 5_000 + "}", "FILE:1: "),
        ("[" * 100_000, "FILE:1: an array begins here"),
        ('{"user_id":' + "[" * 100_000, "FILE:1: nested too deep"),
        (f"user_id,item_id\na,{AT_S}\n", "FILE:1: 'user_id,item_id' is no JSON at column 1"),
    ],
)
def test_json_that_is_not_as_wanted_is_refused_by_line(tmp_path: Path, content: str, said: str) -> None:
    assert said in refused(tmp_path, content, "jsonl")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.dat", "7::007::4::1\n8::a::b::4::1\n", "FILE:2: '8::a::b::4::1' has 5 fields; user, item, rating and time"),
        ("r.inter", "user:token\titem:token\trating:float\ttime:float\n", "the line is 'user:token"),
        (
            "r.csv",
            "movieId,title,genres\n1,x,y\n",
            "the columns are 'movieId', 'title', 'genres'; userId and movieId are",
        ),
        ("r.csv", "userId,movieId,rating,timestamp\n1,2,x,4\n", "FILE:2: rating is 'x'"),
    ],
)
def test_movielens_that_is_not_as_wanted_is_refused_by_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    assert said in refused(tmp_path, content, "movielens", name)


@pytest.mark.parametrize(
    ("rows", "bad", "good"),
    [
        ('a,"two,1\nb,three,2\nc,four,3\n', [2], ["b", "c"]),
        ('a,"two,1\nb,three,2\nc,"four",3\n', [2], ["b", "c"]),
        ('a,"two,1\nb,three,2\nc,x",3\n', [2], ["b", "c"]),
        ('a,"say \\"hi\\"",1\nb,m,2\n', [2], ["b"]),
        ('a,"two,1\nb,"three,2\nc,four,3\n', [2, 3], ["c"]),
        ('a,"two,1\n' + "b,m,2\n" * 30_000, [2], ["b"] * 30_000),
    ],
)
def test_a_stray_quotation_costs_its_line_and_no_other(
    tmp_path: Path, rows: str, bad: list[int], good: list[str]
) -> None:
    said = refused(tmp_path, HEAD + rows)
    assert all(f"{'FILE:' if line == bad[0] else 'line '}{line}: a quotation" in said for line in bad)
    assert f"({len(bad)} bad line" in said
    log = read(tmp_path, HEAD + rows, on_error="skip")
    assert log.user_R == good


def test_quotes_in_their_place_are_read(tmp_path: Path) -> None:
    log = read(tmp_path, f'{HEAD}a,"say ""hi"", twice",{AT_S}\nb,"two\nlines",{AT_S}\nb,film "one,{AT_S}\n')
    assert log.item_R == ['say "hi", twice', "two\nlines", 'film "one']
    review = read(tmp_path, f'user_id,item_id,timestamp,review\na,m,{AT_S},"good, but\nlong, very, so\nthat"\n')
    assert len(review) == 1


def test_lines_that_end_as_on_an_old_mac_have_numbers(tmp_path: Path) -> None:
    rows = "".join(f"u{n},m{n},{AT_S + n}\r" for n in range(5_000))
    assert len(read(tmp_path, HEAD.replace("\n", "\r") + rows)) == 5_000
    said = refused(tmp_path, HEAD.replace("\n", "\r") + rows.replace("m4321", ""))
    assert said.startswith("FILE:4323: item_id is ''")


def test_all_bad_lines_are_counted_and_the_first_five_shown(tmp_path: Path) -> None:
    rows = [f"u{n},m,{'n/a' if n % 10 == 0 else AT_S + n}" for n in range(100)]
    said = refused(tmp_path, HEAD + "\n".join(rows))
    assert said.startswith("FILE:2: timestamp is 'n/a'; ")
    assert [f"line {line}: " in said for line in (12, 22, 32, 42, 52)] == [True] * 4 + [False]
    assert said.endswith("; and 5 more (10 bad lines)")


def test_bad_lines_may_be_left_out_and_are_told(tmp_path: Path) -> None:
    log = read(tmp_path, f"{HEAD}a,m,{AT_S}\n,m,{AT_S}\nb,m,{AT_S}000\nc,m,{AT_S}\n", on_error="skip")
    assert (log.user_R, log.skipped) == (["a", "c"], 2)
    (remark,) = log.remarks
    assert remark.startswith(f"left out: {tmp_path / 'log'}:3: user_id is ''")
    assert "line 4: timestamp" in remark
    with pytest.raises(UnreadableLog, match=r"no events.*2 bad lines"):
        read(tmp_path, f"{HEAD},m,1\n,n,1\n", on_error="skip")


def test_a_log_without_times_is_told_of(tmp_path: Path) -> None:
    log = read(tmp_path, "user_id;item_id;timestamp\nb;m;\na;m;\n")
    assert (log.user_R, log.time_s_R.tolist(), log.timed) == (["b", "a"], [1, 2], False)
    assert "no timestamp; events are in the order of the file" in log.remarks[0]


def test_times_of_every_unit_give_the_same_log(tmp_path: Path) -> None:
    rows = [(f"u{n}", AT_S + 60 * (n * 7 % 10)) for n in range(10)]
    logs = [
        read(tmp_path, HEAD + "".join(f"{user},m,{time_s * scale}\n" for user, time_s in rows))
        for scale in (1, 10**3, 10**6, 10**9)
    ]
    assert all(log.user_R == logs[0].user_R for log in logs)
    assert all(log.time_s_R.tolist() == sorted(time_s for _, time_s in rows) for log in logs)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["csv", "jsonl", "movielens"]), st.sampled_from([b"", HEAD.encode(), b"\xef\xbb\xbf"]), st.data()
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, form: str, beginning: bytes, data: st.DataObject) -> None:
    pieces = st.sampled_from(
        [b"a", b",", b'"', b"\n", b"\r", b"\t", b"1", b"::", b"{", b"}", b"\xff", b'"user_id":', b"\0"]
    )
    content = beginning + b"".join(data.draw(st.lists(pieces | st.binary(max_size=3), max_size=30)))
    for on_error in ("stop", "skip"):
        log, said = None, "read"
        try:
            log = read(tmp_path, content, form, data.draw(st.sampled_from(["x", "x.csv", "x.dat"])), on_error)
        except UnreadableLog as error:
            said = str(error)
        assert said.isprintable()
        assert log is None or len(log) <= content.count(b"\n") + content.count(b"\r") + 1
