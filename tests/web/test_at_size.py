"""What must stay quick with millions of completions: each query finds its rows by an index, and no import or export
reads what it is not about; by what the databases say themselves of the pages' queries.
"""

import json
import re
from contextlib import contextmanager

import pytest
from sqlalchemy import event, text

from tutelage.feedback import at_size, people
from tutelage.feedback.export import export_records
from tutelage.feedback.figures import work_out
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import my_count, set_priorities
from tutelage.feedback.schema import Task
from tutelage.feedback.statistics import progress
from tutelage.records import Completion, Prompt
from tutelage.web import create_app

from .site import PASSWORD, Browser

LARGE = ("task", "completion", "prompt", "answer", "assignment")  # tables that grow with the work


@contextmanager
def selects(store):
    """The queries of the block, with their parameters."""
    found = {}

    def note(connection, cursor, statement, parameters, context, many):
        if statement.lstrip().startswith("SELECT"):
            found.setdefault(statement, parameters)

    event.listen(store.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(store.engine, "before_cursor_execute", note)


def plans(store, queries):
    """query -> the lines of the database's plan for it."""
    sqlite = store.engine.dialect.name == "sqlite"
    word, found = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN (COSTS OFF) ", {}
    with store.engine.connect().execution_options(reading=True) as connection:
        for query, parameters in queries.items():
            rows = connection.exec_driver_sql(word + query, parameters).all()
            found[query] = [str(row[3 if sqlite else 0]).strip() for row in rows]
        connection.rollback()
    return found


def whole_tables(found, large=LARGE):
    """(table, query) where a large table is read from end to end."""
    bad = []
    for query, lines in found.items():
        for line in lines:
            scan = re.match(r"SCAN (\w+)|(?:->)?\s*(?:Parallel )?Seq Scan on (\w+)", line)
            name = scan and (scan[1] or scan[2])
            table = next((one for one in large if name == one or f"{one} AS {name}" in query), None)
            if table:
                bad.append((table, query))
    return bad


def grow(store, prompts):
    """So many more prompts, items and answers, in PostgreSQL itself, and its statistics of them."""
    each = f"FROM generate_series(1, {prompts}) i"
    four = "json_build_array('g' || i || '-0', 'g' || i || '-1', 'g' || i || '-2', 'g' || i || '-3')"
    message = """'[{"role": "user", "content": "?"}]'::json"""
    rows = {
        "prompt (project_id, id, messages)": f"SELECT 'round-1', 'g' || i, {message} {each}",
        "completion (project_id, id, prompt_id, text, finish)": (
            f"SELECT 'round-1', 'g' || i || '-' || k, 'g' || i, repeat('word ', 50), 'stop' {each}, generate_series(0, 3) k"
        ),
        "task (project_id, prompt_id, kind, completions, is_gold, behind, overlap, filled, open, key, part, round)": (
            f"SELECT 'round-1', 'g' || i, 'rank', {four}, false, 1, 2, 0, true, 'g' || i, '', 0 {each}"
        ),
    }
    with store.write() as db:
        for where, what in rows.items():
            db.execute(text(f"INSERT INTO {where} {what}"))
        db.execute(text("ANALYZE"))


def signed_in_as(store, app, name, role):
    with store.write() as db:
        token, session = people.sign_in(db, people.add_person(db, name, role, PASSWORD))
    browser = Browser(app)
    browser.http.cookies.set("tutelage_session", token)
    browser.csrf = session.csrf
    return browser


def work(browser, name, order):
    """A labeler takes three items, drafts, answers, and looks at what was answered."""
    for turn in range(3):
        task = browser.next()["task"]
        assert browser.get(f"/t/{task}").status_code == 200
        draft = {"revision": 0, "payload": {"ranking": "A > B"}}
        assert browser.send(f"/t/{task}/draft", draft).status_code == 200
        body = {"id": f"answer-{name}-{turn}", "kind": "rank", "ranking": order}
        assert browser.send(f"/t/{task}/answer", body).status_code == 200
    assert browser.get(f"/p/round-1/next?besides={task}").status_code == 303
    for path in ("/", "/p/round-1/mine"):
        assert browser.get(path).status_code == 200
    return task


def test_every_query_of_the_pages_has_an_index(filled):
    """SQLite plans by the indexes there are, however few rows there are."""
    app = create_app(filled)
    ana, ben = (signed_in_as(filled, app, name, "labeler") for name in ("Ana", "Ben"))
    lead = signed_in_as(filled, app, "Eve", "lead")
    with selects(filled) as queries:
        work(ana, "ana", "A > B > C > D")
        task = work(ben, "ben", "D > A")
        for path in ("", "/status", "/adjudicate", f"/adjudicate/{task}", "/rounds", "/jobs", "/screening"):
            assert lead.get(f"/projects/round-1{path}").status_code == 200, path
        assert lead.get("/projects/round-1/export?weights=1").status_code == 200
        work_out(filled, "round-1")
    assert len(queries) > 40
    assert whole_tables(plans(filled, queries)) == []


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_postgresql_finds_what_a_labeler_needs_by_an_index(filled):
    """It plans by the numbers of rows: with as many as make a whole table dear."""
    grow(filled, 5000)
    ana = signed_in_as(filled, create_app(filled), "Ana", "labeler")
    with selects(filled) as queries:
        work(ana, "ana", "A > B")
    counts = {query for query in queries if "count(" in query}  # of all open items: now and then
    assert len(queries) > 20 and len(counts) < 6
    others = {query: given for query, given in queries.items() if query not in counts}
    assert whole_tables(plans(filled, others), ("task", "completion", "prompt")) == []


def test_a_query_without_an_index_is_found(filled):
    queries = {"SELECT text FROM completion WHERE text = ?": ("x",), "SELECT id FROM task WHERE id = ?": (1,)}
    assert [table for table, _ in whole_tables(plans(filled, queries))] == ["completion"]


def test_an_import_and_an_export_read_only_what_they_are_about(filled):
    asked = [Prompt(id="new", messages=[{"role": "user", "content": "New?"}])]
    drawn = [Completion(id=f"new-{k}", prompt_id="new", text=f"Text {k}.") for k in range(2)]
    browser = signed_in_as(filled, create_app(filled), "Ana", "labeler")
    task = browser.next()["task"]
    assert browser.send(f"/t/{task}/answer", {"id": "answer-1", "kind": "rank", "ranking": "A > B"}).status_code == 200
    with selects(filled) as queries, filled.write() as db:
        project = find_project(db, "round-1")
        done = import_records(db, project, asked, drawn)
        again = import_records(db, project, asked, drawn)
        assert (done.prompts, done.completions, done.tasks, again.completions, again.tasks) == (1, 2, 1, 0, 0)
        assert len(export_records(db, project).comparisons) == 1
    for query, lines in plans(filled, queries).items():
        keyed = "(project_id=? AND id=?)", "(project_id=? AND key=?)", "(rowid=?)", "(id=?)"
        for line in lines:
            if line.startswith(("SEARCH completion", "SEARCH prompt", "SEARCH task")):
                assert line.endswith(keyed), (line, query)


def test_keys_are_asked_for_in_parts_and_once(monkeypatch):
    monkeypatch.setattr(at_size, "PART", 2)
    assert list(at_size.in_parts(["a", "b", "a", "c"])) == [["a", "b"], ["c"]]
    assert list(at_size.in_parts([])) == []


def test_many_items_are_counted_now_and_then(filled, monkeypatch):
    clock = [100.0]

    def monotonic():
        clock[0] += 1  # so that each count takes a second
        return clock[0]

    monkeypatch.setattr(at_size.time, "monotonic", monotonic)
    with filled.write() as db:
        project = find_project(db, "round-1")

        def counts():
            return my_count(db, project, "nobody")[1], progress(db, project, 0.0).items

        def close_one():
            task = db.query(Task).filter_by(project_id=project.id, open=True).first()
            task.open, task.is_gold = False, True
            db.flush()

        assert counts() == (4, 4)
        close_one()
        assert counts() == (3, 3)  # few: each time
        monkeypatch.setattr(at_size, "MANY", 2)
        assert counts() == (3, 3)
        close_one()
        assert counts() == (3, 3)
        clock[0] += at_size.GOOD_FOR
        assert counts() == (2, 2)


def test_priorities_are_set_in_one_pass(filled):
    with selects(filled) as queries, filled.write() as db:
        project = find_project(db, "round-1")
        assert set_priorities(db, project, {"p2": 2.5, "p3": 1.0, "elsewhere": 9.0}) == 2
    assert sum("FROM task" in query for query in queries) == 1
    with filled.read() as db:
        rows = db.query(Task.prompt_id, Task.behind).filter_by(project_id="round-1").all()
        assert json.loads(json.dumps(dict(map(tuple, rows)))) == {"p0": 0.0, "p1": 0.0, "p2": -2.5, "p3": -1.0}


@pytest.mark.parametrize("count", [0, 3])
def test_an_empty_part_is_no_query(filled, count):
    with selects(filled) as queries, filled.write() as db:
        project = find_project(db, "round-1")
        asked = [Prompt(id=f"x{i}", messages=[{"role": "user", "content": "?"}]) for i in range(count)]
        import_records(db, project, asked, [], "prompts")
    assert sum("FROM prompt" in query for query in queries) == min(count, 1)
