"""Files of every kind that is read, and folders with splits."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tutelage.data.formats import data_files, read_rows, write_rows
from tutelage.data.sources import load_data
from tutelage.errors import UserError

ROWS = [{"prompt": "a"}, {"prompt": "b", "category": "chat"}]


def save_to_disk(folder, rows):
    """As `datasets` saves: a stream of arrow batches, and state.json that names it."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")


def test_a_saved_dataset_and_its_splits(tmp_path):
    save_to_disk(tmp_path / "one", [{"prompt": f"p{i}"} for i in range(3)])
    assert [p.messages[0]["content"] for p in load_data(str(tmp_path / "one")).prompts] == ["p0", "p1", "p2"]
    both = tmp_path / "both"
    save_to_disk(both / "train", [{"prompt": f"p{i}"} for i in range(3)])
    save_to_disk(both / "test", [{"prompt": "held out"}])
    (both / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert len(load_data(str(both)).prompts) == 3
    assert [p.messages[0]["content"] for p in load_data(str(both), "report").prompts] == ["held out"]


def test_files_named_for_splits_and_a_snapshot_of_the_hub(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("# card")
    parquet.write_table(pa.Table.from_pylist([{"prompt": "a"}]), tmp_path / "data" / "train-00000-of-00001.parquet")
    parquet.write_table(pa.Table.from_pylist([{"prompt": "b"}]), tmp_path / "data" / "test-00000-of-00001.parquet")
    assert len(data_files(tmp_path)) == 2
    for split, text in (("train", "a"), ("report", "b")):
        assert [p.messages[0]["content"] for p in load_data(str(tmp_path), split).prompts] == [text]
    alone = tmp_path / "data" / "test-00000-of-00001.parquet"  # by itself it is what there is to train on
    assert len(load_data(str(alone)).prompts) == 1


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.parquet"])
def test_rows_written_are_read(name, tmp_path):
    path = tmp_path / name
    write_rows(path, ROWS)
    assert list(read_rows(path)) == [(1, ROWS[0]), (2, ROWS[1])]
    first = path.read_bytes()
    write_rows(path, ROWS)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_forgiving_of_harmless_differences(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("\n".join(map(json.dumps, ROWS)))  # JSON Lines under the name json
    assert [row for _, row in read_rows(path)] == ROWS
    path.write_text(json.dumps({"data": ROWS}, indent=2))
    assert [row for _, row in read_rows(path)] == ROWS
    lines = tmp_path / "rows.jsonl"
    lines.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, ROWS)).encode())  # BOM, CRLF, blank lines
    assert [row for _, row in read_rows(lines)] == ROWS
    lines.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))  # gzip without its name
    assert [row for _, row in read_rows(lines)] == ROWS[:1]
    feather = tmp_path / "rows.arrow"
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(feather), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    assert next(read_rows(feather)) == (1, ROWS[0])


def test_a_line_separator_inside_text_is_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"prompt": "one\u2028two\x85three"}])
    assert [row for _, row in read_rows(path)] == [{"prompt": "one\u2028two\x85three"}]


def test_near_names_are_suggested(tmp_path):
    write_rows(tmp_path / "pairs.jsonl", ROWS)
    with pytest.raises(UserError, match=r"did you mean pairs\.jsonl"):
        load_data(str(tmp_path / "pair.jsonl"))
    with pytest.raises(UserError, match="no known kind"):
        load_data(str(tmp_path / "pairs.jsonl").replace("jsonl", "csv")) if (tmp_path / "pairs.csv").write_text(
            "a"
        ) else None
