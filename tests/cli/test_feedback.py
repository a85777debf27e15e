import json

import pytest

from tutelage.cli.main import main
from tutelage.data.formats import write_jsonl
from tutelage.records import Completion, Prompt


def run(*words):
    with pytest.raises(SystemExit) as caught:
        main(["feedback", *words])
    return caught.value.code


def test_from_a_file_to_an_export(tmp_path, capsys):
    store = ["--store", str(tmp_path / "feedback.db")]
    asked = [Prompt(id="p", messages=[{"role": "user", "content": "Why?"}])]
    write_jsonl(
        tmp_path / "samples.jsonl",
        [*asked, *(Completion(id=f"p-{k}", prompt_id="p", text=f"text {k}") for k in range(3))],
    )
    assert run("import", str(tmp_path / "samples.jsonl"), "--project", "round-1", *store) == 2
    assert "no such store" in capsys.readouterr().err
    assert run("new", "Round 1", "--overlap", "2", *store) == 0
    assert run("import", str(tmp_path / "samples.jsonl"), "--project", "round-1", "--json", *store) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tasks"] == 1
    assert run("export", "--project", "round-1", "--out", str(tmp_path / "out"), *store) == 2
    assert "label first" in capsys.readouterr().err
    assert run("quality", "--project", "round-1", "--json", *store) == 0
    assert json.loads(capsys.readouterr().out)["pair_agreement"] is None
    (tmp_path / "first.jsonl").write_text('{"prompt_id": "p", "priority": 0.7}')
    assert run("prioritize", "--file", str(tmp_path / "first.jsonl"), "--project", "round-1", *store) == 0
    (tmp_path / "first.jsonl").write_text('{"prompt_id": "p", "priority": NaN}')
    assert run("prioritize", "--file", str(tmp_path / "first.jsonl"), "--project", "round-1", *store) == 2
    assert run("prioritize", "--reward-models", "one", "--project", "round-1", *store) == 2
    assert run("backup", str(tmp_path / "copy.db"), *store) == 0
    capsys.readouterr()
    assert run("restore", str(tmp_path / "copy.db"), "--store", str(tmp_path / "again.db"), "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"answers": 0, "people": 0, "projects": 1}
    assert run("invite", "--role", "lead", "--url", "https://label.example/", *store) == 0
    assert "https://label.example/join/" in capsys.readouterr().out


def test_what_is_misspelled_is_named(capsys):
    assert run("exprot") == 2
    assert "did you mean export" in capsys.readouterr().err
    assert run("serve", "--prot", "1") == 2
    assert "--port" in capsys.readouterr().err


def test_an_import_says_what_the_file_is_and_tells_every_bad_row(tmp_path, capsys):
    store = ["--store", str(tmp_path / "feedback.db"), "--project", "round-1"]
    file = tmp_path / "rows.jsonl"
    assert run("new", "Round 1", *store[:2]) == 0
    file.write_text('{"prompt": "Why?", "chosen": "a", "rejected": "b"}\n{\n[]\n')
    assert run("import", str(file), *store) == 2
    said = capsys.readouterr().err
    assert "3 faults" in said and all(f"\n  row {number}" in said for number in (1, 2, 3))
    file.write_text('{"prompt": "Why?", "chosen": "a", "rejected": "b"}\n')
    assert run("import", str(file), "--answers", "--gold", *store) == 2
    assert run("import", str(file), "--labeler", "Ana", *store) == 2
    assert run("import", str(file), "--answers", *store) == 2
    assert "names no labeler" in capsys.readouterr().err
    assert run("import", str(file), "--answers", "--labeler", "Ana", "--json", *store) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["answers"] == 1
