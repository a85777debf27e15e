"""Whole files or none; rows or a message that names the one that is wrong."""

import os

import pytest

from tutelage.errors import UserError
from tutelage.runs import atomic_write_json, atomic_write_text, read_jsonl_rows
from tutelage.runs.files import append_text, point_link, remove_folder


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("long " * 1000, "short ü\n", ""):
        atomic_write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    (tmp_path / "file").write_text("old")

    def fail(*args):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        atomic_write_text(tmp_path / "file", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_json_is_refused_where_it_is_not_json(tmp_path):
    with pytest.raises(ValueError):
        atomic_write_json(tmp_path / "file", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []
    atomic_write_json(tmp_path / "file", {"ü": [1, None]})
    assert (tmp_path / "file").read_text() == '{\n  "ü": [\n    1,\n    null\n  ]\n}\n'


def test_append_adds_at_the_end(tmp_path):
    for text in ("a\n", "", "ü\n"):
        append_text(tmp_path / "log", text)
    assert (tmp_path / "log").read_text() == "a\nü\n"


def test_rows_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    for content, rows in (("", []), ('{"a": 1}\n{"b": "\u2028"}\n', [{"a": 1}, {"b": "\u2028"}]), ("{}", [{}])):
        path.write_text(content)
        assert read_jsonl_rows(path) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n{}\n', "row 2: is not JSON"),
        (b'{"a": 1}\n\n{}\n', "row 2: is not JSON"),
        (b'{"a": 1}\n{"a"', "row 2: is not JSON"),
        (b"{}\n[1]\n", "row 2: is list, not an object"),
        (b"{}\n{}\nnull\n", "row 3: is NoneType, not an object"),
        (b'{"a": NaN}\n', "row 1: is not JSON .NaN is not a JSON number"),
        (b'{"a": -Infinity}\n', "row 1: is not JSON .-Infinity"),
        (b'{"a": "\xff"}\n', r"row 1: is not UTF-8 .byte 8"),
        (b"\x80\x02}q\x00.", "row 1: is not UTF-8"),
    ],
)
def test_a_bad_row_is_named_and_none_is_skipped(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_jsonl_rows(path)
    assert str(path) in caught.value.message
    assert caught.value.mend


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(UserError, match="cannot be read"):
        read_jsonl_rows(tmp_path / name)


def test_a_link_is_replaced_in_one_move_and_relative(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        point_link(tmp_path / "link", tmp_path / name)
        assert os.readlink(tmp_path / "link") == name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "link"]


def test_a_folder_whose_removal_is_cut_off_is_not_there_under_its_name(tmp_path, monkeypatch):
    (tmp_path / "step-1").mkdir()

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", fail)
    with pytest.raises(KeyboardInterrupt):
        monkeypatch.setattr("tutelage.runs.files.shutil.rmtree", lambda p, **k: None if k else fail())
        remove_folder(tmp_path / "step-1")
    assert not (tmp_path / "step-1").exists()
