"""Answers of local models and of endpoints on the chat page: side by side, by turns, and as they come."""

import threading

import pytest

from tutelage.errors import UserError
from tutelage.judges.cache import Reply
from tutelage.judges.chats import ChatFailedError
from tutelage.workbench import talking
from tutelage.workbench.models import Models
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
