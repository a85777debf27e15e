"""A round goes from samples to labels to training, waits for people, stops, goes on, and leads to the next."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.data.formats import write_jsonl
from tutelage.data.sources import prompts
from tutelage.errors import UserError
from tutelage.feedback import jobs, people, queue, rounds, rounds_run
from tutelage.feedback.imports import import_gold, import_records
from tutelage.feedback.intake import Imported, add_tasks, task_row
from tutelage.feedback.lease import Lease
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.queue import Refused
from tutelage.feedback.round_prompts import chosen_prompts, own_prompts
from tutelage.feedback.rounds import RoundSettings
from tutelage.feedback.schema import Audit, Completion, Round, Task
from tutelage.feedback.store import Store, StoreUnavailable
from tutelage.records import Comparison, Prompt


@pytest.fixture
def commands(store, sampled, monkeypatch):
    """What the steps' commands were; each leaves what the real one would."""
    ran = []

    def command(self, *words):
        ran.append(words)
        self.look()
        if words[0] == "sample":
            asked, drawn = sampled(2, int(words[words.index("--samples") + 1]))
            drawn[0] = replace(drawn[0], text=drawn[0].text + "\x00")  # a young model draws any byte
            write_jsonl(Path(words[words.index("--out") + 1]), [*asked, *drawn])
        elif words[0] == "run":
            out = self.folder / "run"
            out.mkdir()
            card = {"accuracy": 0.7, "ci95": [0.6, 0.8]}
            stages = [{"name": name, "checkpoint": f"{out}/{name}/c"} for name in ("reward", "ppo")]
            report = {"reward_model": card, "stages": stages, "data": {"comparisons": 4}}
            (out / "report.json").write_text(json.dumps(report))

    monkeypatch.setattr(rounds_run.Runner, "command", command)
    monkeypatch.setattr(rounds_run, "POLL", 0.01)
    with store.write() as db:
        create_project(db, "Loop", overlap=2)
        for name in ("ana", "ben"):
            people.add_person(db, name, "labeler", None, person_id=name)
    return ran


def label(store, *names, most=99):
    for name in names:
        with store.write() as db:
            project = find_project(db, "loop")
            for _ in range(most):
                if (task := queue.lease_next(db, project, name)) is None:
                    break
                queue.submit(db, f"{name}-{task.id:08}", task.id, name, "rank", {"ranks": [1, 2, 3, 4]})


def run(store, tmp_path, **options):
    return rounds_run.run_rounds(store, "loop", RoundSettings(**options.pop("settings", {})), tmp_path, **options)[0]


def test_a_round_whose_labelers_labeled_nothing_says_so(store, commands, tmp_path):
    with pytest.raises(UserError, match="world:fair labeled none of the round's answers"):
        run(store, tmp_path, settings={"by": "world:fair"}, wait=True)
    label(store, "ana", "ben")  # people do it in their place, and it goes on
    assert run(store, tmp_path)["state"] == "done"


def test_a_round_waits_for_people_and_goes_on_where_it_was(store, commands, tmp_path):
    first = run(store, tmp_path)
    assert (first["state"], first["labels"]) == ("labeling", "0 of 4")
    label(store, "ana")
    assert run(store, tmp_path)["labels"] == "2 of 4"
    label(store, "ben")
    done = run(store, tmp_path)
    assert done["state"] == "done" and done["accuracy"] == 0.7 and done["accuracy_ci95"] == [0.6, 0.8]
    assert [words[0] for words in commands] == ["sample", "run"]  # nothing was done twice
    assert commands[-1][-2:] == ("--data", "feedback:loop")
    with store.read() as db:
        (told,) = rounds.standings(db, find_project(db, "loop"), time.time())
        assert (told.labeled, told.needed, told.share, told.alive) == (4, 4, 1.0, False)
        assert {task.round for task in db.query(Task)} == {1}
        assert [one.text[-1] for one in db.query(Completion)].count("\ufffd") == 1
    # the next round samples from the policy that came of this one, and its items are new ones
    following = run(store, tmp_path)
    assert following["round"] == 2 and following["labels"] == "0 of 4"
    with store.read() as db:  # a round is started once, however often one goes on with it
        log = [(row.person_id, row.action, row.detail) for row in db.query(Audit).order_by(Audit.id)]
    assert log == [("command line", "start round", f"loop: {number}") for number in (1, 2)]
    assert commands[-1][:3] == ("sample", "--model", f"{tmp_path}/loop/1/run/ppo/c")
    with store.read() as db:
        assert db.query(Task).count() == 4


def test_several_models_share_the_answers_of_a_prompt(store, commands, tmp_path):
    run(store, tmp_path, settings={"model": ("a", "b", "openai:http://x/v1#c"), "samples": 4})
    shares = {words[2]: words[words.index("--samples") + 1] for words in commands}
    assert shares == {"a": "2", "b": "1", "openai:http://x/v1#c": "1"}
    with store.read() as db:
        assert [len(task.completions) for task in db.query(Task)] == [4, 4]


def test_training_may_begin_before_all_is_labeled(store, commands, tmp_path):
    run(store, tmp_path)
    with store.write() as db, pytest.raises(Refused, match="nothing to train on"):
        rounds.change_state(db, find_project(db, "loop"), "enough")
    label(store, "ana", most=1)
    with store.write() as db:
        rounds.change_state(db, find_project(db, "loop"), "enough")
    assert run(store, tmp_path)["state"] == "done"


def test_a_stop_and_a_failure_lose_one_step_at_most(store, commands, tmp_path, monkeypatch):
    run(store, tmp_path)
    label(store, "ana", "ben")
    whole = rounds_run.Runner.command

    def fails(self, *words):
        raise UserError("failed: disk full", where="run")

    monkeypatch.setattr(rounds_run.Runner, "command", fails)
    with pytest.raises(UserError, match="disk full"):
        run(store, tmp_path)
    with store.read() as db:
        row = db.query(Round).one()
        assert row.state == "failed" and "disk full" in row.said

    def stopped(self, *words):
        with self.store.write() as db:
            rounds.change_state(db, find_project(db, "loop"), "stopped")
        if self.look().state == "stopped":
            raise rounds_run.Stopped

    monkeypatch.setattr(rounds_run.Runner, "command", stopped)
    assert run(store, tmp_path)["state"] == "stopped"
    monkeypatch.setattr(rounds_run.Runner, "command", whole)
    assert run(store, tmp_path)["state"] == "done"
    assert [words[0] for words in commands] == ["sample", "run"]


def test_one_round_at_a_time_and_settings_within_limits(store, commands, tmp_path):
    run(store, tmp_path)
    with store.write() as db, pytest.raises(Refused, match="Round 1 is not done"):
        rounds.start_round(db, find_project(db, "loop"), RoundSettings(), tmp_path)
    for wrong in (
        {"samples": 1},
        {"prompts": 0},
        {"model": ()},
        {"model": ("a", "b", "c"), "samples": 2},
        {"temperature": -1},
        {"ensemble": ("a",)},
    ):
        with pytest.raises(UserError):
            RoundSettings(**wrong)


def test_a_round_asks_the_projects_own_prompts(store, commands, tmp_path):
    asked = [Prompt(id=f"own{i}", messages=[{"role": "user", "content": f"Own {i}?"}]) for i in range(3)]
    gold = Comparison(
        id="g",
        prompt_id="gold",
        completion_ids=["x", "y"],
        ranks=[1, 2],
        messages=asked[0].messages,
        completions=["a", "b"],
    )
    own = {"data": "project", "prompts": 2, "max_new_tokens": 9, "temperature": 0.5}
    with store.write() as db:
        project = find_project(db, "loop")
        with pytest.raises(UserError, match="no prompts of its own"):
            chosen_prompts(db, project, 2)
    run(store, tmp_path)  # of the world; its prompts are not the project's own
    with store.write() as db:
        project = find_project(db, "loop")
        db.query(Round).one().state = "done"
        import_gold(db, project, [gold])
        assert import_records(db, project, asked, [], "prompts").tasks == 0
        assert {one.id for one in own_prompts(db, project)} == {"own0", "own1", "own2"}
    run(store, tmp_path, settings=own)
    words = commands[-1]
    file = tmp_path / "loop" / "2" / "prompts.jsonl"
    assert words[words.index("--data") + 1 :][:3] == (str(file), "--split", "all")
    assert [words[words.index(name) + 1] for name in ("--max-new-tokens", "--temperature")] == ["9", "0.5"]
    first = [one.id for one in prompts(str(file), "all", None, 0)]
    assert len(first) == 2 and set(first) < {"own0", "own1", "own2"}
    # the next round begins with those that were not asked yet
    with store.write() as db:
        project = find_project(db, "loop")
        for name in first:
            rows = [task_row(project, name, "rank", ["p0-0", "p0-1"], number=2)]
            add_tasks(db, project, rows, Imported())
        assert [one.id not in first for one in own_prompts(db, project)] == [True, False, False]


def told(folder, **numbers):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / rounds.PROGRESS).write_text(json.dumps({"unit": "answer", "first": 0, **numbers}))


def test_how_far_sampling_is_over_all_models(store, tmp_path):
    settings = RoundSettings(model=("a", "b"), samples=4, prompts=10)
    with store.write() as db:
        project = create_project(db, "Loop")
        row = rounds.start_round(db, project, settings, tmp_path)
    folder = Path(row.folder)
    assert rounds.doing_of(row) is None  # nothing was said yet
    told(folder, label="samples-0", done=5, total=20, seconds=50)
    found = rounds.doing_of(row)
    assert (found.done, found.total, found.left, found.time_left) == (5, 40, 350, "about 6 minutes left")
    told(folder, label="samples-1", done=20, total=20, seconds=50)
    assert (rounds.doing_of(row).done, rounds.doing_of(row).time_left) == (40, "less than a minute left")
    told(folder, label="samples-0", done=0, total=20, seconds=1)
    assert rounds.doing_of(row).time_left == ""
    for odd in ("{", "[]", '{"label": 1}', '{"label": "samples-9", "unit": "answer", "done": 1, "total": 2}'):
        (folder / rounds.PROGRESS).write_text(odd)
        assert rounds.doing_of(row) is None
    with store.read() as db:
        (one,) = rounds.standings(db, find_project(db, "loop"), time.time() + 3600)
        assert not one.alive and one.doing is None


def test_a_killed_process_that_had_brought_its_samples_in_brings_them_in_once(store, commands, tmp_path):
    run(store, tmp_path)
    with store.write() as db:
        db.query(Round).one().state = "sampling"  # it was killed before it could say so
    assert run(store, tmp_path)["items"] == 2
    with store.read() as db:
        assert db.query(Task).count() == 2


def test_the_store_may_be_away_for_a_while(store, commands, tmp_path, monkeypatch):
    away = iter([True, True, False])

    def look(self):
        if next(away, False):
            raise StoreUnavailable("the database does not answer")
        return "labeling"

    monkeypatch.setattr(rounds_run.Runner, "label", look)
    assert run(store, tmp_path)["state"] == "labeling" and next(away, None) is None


def test_who_stops_a_round_waits_for_its_worker_that_is_writing(store, commands, tmp_path):
    """On PostgreSQL both lock the job and then the round: neither waits for ever, and nothing of either is lost."""
    with store.write() as db:
        row = rounds.start_round(db, find_project(db, "loop"), RoundSettings(), tmp_path, waits=True)
        rounds.enqueue(db, row)
    claim = jobs.claim(store, "worker", ["round"])
    other = Store.open(store.engine.url.render_as_string(False))

    def stop():
        with other.write() as db:
            rounds.change_state(db, find_project(db, "loop"), "stopped")

    thread = threading.Thread(target=stop)
    with Lease(store, claim) as lease:
        with rounds_run.Runner(lease, row, wait=False).write() as (_, mine):
            thread.start()
            time.sleep(0.3)
            mine.state, mine.result = "labeling", {**mine.result, "items": 7}
        thread.join(20)
    assert not thread.is_alive()
    with store.read() as db:
        after = db.query(Round).one()
        assert after.state == "stopped" and (after.result["stopped_at"], after.result["items"]) == ("labeling", 7)
        assert jobs.open_job(db, "round loop") is None
    other.close()
