"""Answers of local models and of endpoints on the chat page: side by side, by turns, and as they come."""

import json
import shutil
import threading

import pytest

from tutelage.errors import UserError
from tutelage.judges.cache import Reply
from tutelage.judges.chats import ChatFailedError
from tutelage.workbench import talking
from tutelage.workbench.models import Models, checkpoint_folder, reference_of, stages_of
from tutelage.workbench.talking import Sampling, speak, weigh

ASKED = [{"role": "user", "content": "Hello?"}]
SAMPLING = Sampling(max_tokens=24, temperature=1.0)


@pytest.fixture
def models(tmp_path):
    return Models(tmp_path, "float32")


def test_two_answers_of_one_model_take_turns_and_are_what_each_is_alone(models, nano):
    seeds = (3, 4)
    alone = [list(speak(models, str(nano), ASKED, Sampling(24, 1.0, seed))) for seed in seeds]
    assert alone[0][-1]["done"] in ("stop", "length") and alone[0] != alone[1]
    both = [speak(models, str(nano), ASKED, Sampling(24, 1.0, seed)) for seed in seeds]
    turns = [[next(both[0])], [next(both[1])]]  # the first is not done, and the second has begun
    for mine, more in zip(turns, both, strict=True):
        mine += more
    assert turns == alone


def test_the_threads_of_two_streams_do_not_wait_for_each_other(models, nano):
    """Each thread goes on only when the other has got a token, too."""
    meet, found = threading.Barrier(2), {}

    def listen(seed):
        coming = speak(models, str(nano), ASKED, Sampling(24, 1.0, seed))
        first = next(coming)
        meet.wait(60)
        found[seed] = [first, *coming][-1]

    threads = [threading.Thread(target=listen, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert set(found) == {1, 2} and all("done" in last for last in found.values())


def test_a_reader_who_leaves_holds_nothing(models, nano):
    left = speak(models, str(nano), ASKED, SAMPLING)
    next(left)
    assert models.using(str(nano)).acquire(blocking=False)
    models.using(str(nano)).release()
    assert weigh(models, str(nano), ASKED, "Good day.", "")["kl"] == 0.0  # its own reference


def test_a_model_is_loaded_once_and_the_oldest_makes_room(models, monkeypatch):
    loaded = []
    monkeypatch.setattr("tutelage.workbench.models.KEPT", 2)

    class Chat:
        def __init__(self, path, dtype, device):
            loaded.append(path)
            self.policy = path

    monkeypatch.setattr("tutelage.workbench.models.LocalChat", Chat)
    for spec in ("a", "b", "a", "c", "a", "b"):
        assert models.policy(spec) == spec
    assert loaded == ["a", "b", "c", "b"]


def test_an_endpoint_is_a_side_too(models, monkeypatch):
    spec = "openai:http://127.0.0.1:9/v1#m"
    monkeypatch.setattr(talking, "streamed", lambda *_: iter(["Good ", "day", Reply("Good day", "stop")]))
    assert list(speak(models, spec, ASKED, SAMPLING)) == [{"text": "Good "}, {"text": "Good day"}, {"done": "stop"}]

    def broken(*_):
        yield "Good "
        raise ChatFailedError("the answer broke off")

    monkeypatch.setattr(talking, "streamed", broken)
    coming = speak(models, spec, ASKED, SAMPLING)
    assert next(coming) == {"text": "Good "}
    with pytest.raises(UserError, match="broke off"):
        next(coming)


@pytest.fixture
def stages(tmp_path, nano):
    """Runs of one recipe: sft of the world's base, dpo and ppo of sft; and an sft of something else."""

    def made(name, **about):
        latest = tmp_path / name / "checkpoints" / "latest"
        shutil.copytree(nano, latest)
        (latest / "tutelage.json").write_text(json.dumps({"role": "policy", **about}))
        return str(latest)

    sft = made("mine/sft", parent="/elsewhere/tutelage/world/base")
    made("mine/ppo", parent=sft)
    made("mine/dpo", parent=sft, reference=made("other/ref", parent=None))
    made("other/sft", parent="/gone")
    return Models(tmp_path, "float32")


def test_a_reference_that_is_not_here_is_not_the_model_itself(stages, tmp_path):
    def reference(name):
        return reference_of(str(tmp_path / name))

    assert reference("mine/sft") == "world" and reference("other/ref") == str(tmp_path / "other/ref")
    assert checkpoint_folder(reference("mine/dpo")) == checkpoint_folder(str(tmp_path / "other/ref"))
    assert reference("other/sft") == ""
    weighed = weigh(stages, str(tmp_path / "other/sft"), ASKED, "Good day.", "")
    assert weighed == {"tokens": None, "kl": None, "reference": "missing", "reward": None}


def test_stages_come_in_the_order_in_which_each_was_made_from_the_other(stages, tmp_path):
    assert [one.name for one in stages_of(str(tmp_path / "mine/ppo"), stages.found())] == [
        "world base",
        "mine/sft",
        "mine/ppo",
        "mine/dpo",
    ]
    assert [one.name for one in stages_of(str(tmp_path / "other/sft"), stages.found())] == ["other/sft", "other/ref"]
    (tmp_path / "lora" / "checkpoints" / "latest").mkdir(parents=True)
    (tmp_path / "lora" / "checkpoints" / "latest" / "adapter_config.json").write_text("{}")
    assert "lora" in {one.name for one in stages.found()}


def test_a_process_reward_model_is_not_offered_as_one_that_answers(stages, tmp_path):
    about = tmp_path / "mine/dpo/checkpoints/latest/tutelage.json"
    about.write_text(about.read_text().replace('"policy"', '"process"'))
    roles = {one.name: one.role for one in stages.found()}
    assert (roles["mine/dpo"], roles["mine/ppo"]) == ("process", "policy")


def test_an_end_that_was_not_said_is_no_part_of_the_kl(models, nano, stages, tmp_path):
    spec = str(tmp_path / "mine/ppo")
    whole, cut = (models.read(ASKED, "Good day.", policy=spec, reference=spec, ended=e) for e in (True, False))
    assert len(whole.kl) == len(cut.kl) + 1


def test_what_is_served_comes_first_wherever_it_is(tmp_path, nano):
    """Once each: a run by its own name, a folder elsewhere by the name that it is served under."""
    runs = tmp_path / "runs"
    for name in ("mine/sft", "mine/ppo"):
        shutil.copytree(nano, runs / name / "checkpoints" / "step-1" / "model")
        (runs / name / "checkpoints" / "latest").symlink_to("step-1/model")
    served = {"ppo": f"{runs}/mine/../mine/ppo", "elsewhere": str(nano), "world": "world"}
    found = Models(runs, served=served).found()
    assert [one.name for one in found] == ["world base", "mine/ppo", "elsewhere", "mine/sft"]
    assert [one.spec for one in found[1:3]] == [str(runs / "mine/ppo"), str(nano)]
