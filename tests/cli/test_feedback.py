import json

import pytest
from sqlalchemy import select

from tutelage.cli.main import main
from tutelage.data.formats import write_jsonl
from tutelage.feedback import Store
from tutelage.feedback.imports import import_records
from tutelage.feedback.people import add_person
from tutelage.feedback.projects import create_project
from tutelage.feedback.queue import lease_next, submit
from tutelage.feedback.schema import Audit
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
    with Store.open(tmp_path / "feedback.db").read() as db:
        log = db.execute(select(Audit.person_id, Audit.action, Audit.detail).order_by(Audit.id)).all()
    assert {row.person_id for row in log} == {"command line"}
    assert [tuple(row)[1:] for row in log] == [
        ("make project", "round-1"),
        ("import", "round-1: 1 tasks"),
        ("prioritize", "round-1: 1 items"),
        ("backup", "copy.db"),
        ("invite", "lead"),
    ]  # what was refused is not in it


def test_quality_by_use_case_period_and_labeler(tmp_path, capsys):
    path = tmp_path / "feedback.db"
    store = Store.open(path, create=True)
    with store.write() as db:
        project = create_project(db, "Round 1", overlap=2)
        asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": "?"}], category="chat") for i in range(3)]
        texts = ("a long answer", "short")
        drawn = [Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=text) for p in asked for k, text in enumerate(texts)]
        import_records(db, project, asked, drawn)
        for name in ("ana", "ben"):
            add_person(db, name, "labeler", None, person_id=name)
            while (task := lease_next(db, project, name)) is not None:
                submit(db, f"{name}-{task.id:08}", task.id, name, "rank", {"ranks": [1, 2]})
    store.close()
    assert run("quality", "--project", "round-1", "--json", "--store", str(path)) == 0
    found = json.loads(capsys.readouterr().out)
    row = found["by_category"][0]
    assert row | {"category": "chat", "share": 1.0, "ci95": [1.0, 1.0], "pairs": 3, "items": 3} == row
    assert row["kendall_tau"] == 1.0 and row["kendall_tau_ci95"] == [1.0, 1.0]
    assert [row["pairs"] for row in found["by_day"]] == [3]
    ana = found["labelers"]["ana"]
    assert ana["agreement"] == 1.0 and ana["agreement_ci95"] == pytest.approx([0.4385, 1.0]) and ana["pairs"] == 3
    assert ana["kendall_tau"] == 1.0 and ana["cohen_kappa"] is None  # who always says the same tells nothing by chance
    assert ana["longer_preferred"]["share"] == ana["longer_preferred"]["others"] == 1.0
    assert ana["contradictions"] == {"repeats": 0, "reversed": 0, "circles": 0, "rated": 0, "unlike": 0}
    assert 0 < found["habits"]["first_shown_best"]["p"] <= 1 and ana["gold_accuracy"] is None
    assert run("export", "--project", "round-1", "--out", str(tmp_path / "out"), "--store", str(path)) == 0
    with Store.open(path).read() as db:
        assert db.execute(select(Audit.person_id, Audit.action)).all() == [("command line", "export")]
    capsys.readouterr()
    assert run("quality", "--project", "round-1", "--store", str(path)) == 0
    assert "category chat: share 1.0, ci95 [1.0, 1.0], pairs 3, items 3" in capsys.readouterr().out


def test_a_token_made_by_command_is_not_its_persons_doing(tmp_path, capsys):
    path = tmp_path / "feedback.db"
    with Store.open(path, create=True).write() as db:
        add_person(db, "Ana", "admin", "a long password")
    for words in (("night",), ("night", "--revoke")):
        assert run("token", *words, "--store", str(path)) == 0
    with Store.open(path).read() as db:
        log = [tuple(row) for row in db.execute(select(Audit.person_id, Audit.action, Audit.detail))]
    assert log == [
        ("command line", "make token", "night for Ana: models"),
        ("command line", "revoke token", "night"),
    ]


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


def test_jobs_are_listed_stopped_begun_again_and_done(tmp_path, capsys, monkeypatch):
    from tutelage.feedback import jobs, jobs_run

    where = str(tmp_path / "feedback.db")
    store = ["--store", where]
    assert run("new", "Round 1", *store) == 0
    assert run("jobs", *store) == 0 and "none yet" in capsys.readouterr().out
    with Store.open(where).write() as db:
        jobs.put(db, "label", "round-1", {"by": "world:fair"}, folder=tmp_path / "job")
    capsys.readouterr()
    assert run("jobs", *store) == 0
    assert "job 1: project round-1, kind label, state waits, attempts 0" in capsys.readouterr().out
    assert run("jobs", "--stop", "1", "--json", *store) == 0
    told = json.loads(capsys.readouterr().out)["jobs"]
    assert [(one["job"], one["state"]) for one in told] == [(1, "stopped")]
    for words in (["--stop", "1"], ["--stop", "7"], ["--stop", "1", "--again", "1"], ["--project", "none"]):
        assert run("jobs", *words, *store) == 2
    assert run("jobs", "--again", "1", *store) == 0
    monkeypatch.setitem(jobs_run.DO, "label", lambda lease: {"comparisons": 3})
    capsys.readouterr()
    assert run("work", "--once", "--json", *store) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"done": 1}
    assert run("jobs", "--project", "round-1", "--json", *store) == 0
    assert [one["state"] for one in json.loads(capsys.readouterr().out)["jobs"]] == ["done", "stopped"]
    with Store.open(where).read() as db:
        log = list(db.scalars(select(Audit.action).where(Audit.action.startswith("job"))))
    assert log == ["job: stop", "job: again"]


def test_a_worker_of_its_own_ends_in_good_order(tmp_path):
    import signal
    import subprocess
    import sys
    import time

    where = tmp_path / "feedback.db"
    assert run("new", "Round 1", "--store", str(where)) == 0
    program = [sys.executable, "-m", "tutelage", "feedback", "work", "--store", str(where)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and process.stderr.read() == ""
