"""The pool of samplers with stand-ins for Ray and its workers: who dies when is chosen here."""

import random
from types import SimpleNamespace

import pytest
import torch

from pretended_ray import Died, Ray
from tutelage.cluster.samplers import Pool, Request
from tutelage.cluster.workers import FAILURES
from tutelage.configs.cluster import ClusterConfig
from tutelage.engine.sampling import SamplingParams


class Worker:
    """Answers with the prompt, the seed and the weights it was given; the n-th call of all workers may be its death."""

    calls = 0
    deaths: frozenset = frozenset()
    started = 0

    def __init__(self, seat):
        Worker.started += 1
        self.seat = seat
        self.dead = False
        self.ready = SimpleNamespace(remote=lambda: self._future(lambda: None))
        self.draw = SimpleNamespace(remote=self._draw)

    def _draw(self, weights, version, request):
        rows = [
            [(prompt, request.seed, float(weights["w"]), n) for n in range(request.count)] for prompt in request.prompts
        ]
        return self._future(lambda: rows)

    def _future(self, answer):
        Worker.calls += 1
        dies = Worker.calls in Worker.deaths

        def future():
            if dies or self.dead:
                self.dead = True
                raise Died("the actor died")
            return answer()

        return future


def policy(value):
    return SimpleNamespace(plain_weights=lambda: {"w": torch.tensor(value)})


def request(count, seed):
    return Request([f"p{i}" for i in range(count)], 2, SamplingParams(), seed, 96)


def answers(count, seed, weight):
    return [[(f"p{i}", seed, weight, n) for n in range(2)] for i in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_no_answer_is_lost_or_doubled_when_workers_die(seed):
    draw = random.Random(seed)
    Worker.calls, Worker.started = 0, 0
    Worker.deaths = frozenset(draw.sample(range(1, 60), 10))
    pool = Pool(Ray(seed), Worker, ClusterConfig(samplers=2))
    for step in range(1, 6):
        count = draw.randint(1, 23)
        assert pool.draw(policy(float(step)), request(count, step), None) == answers(count, step, float(step))
    assert Worker.started > 2  # others took the places of those that died
    workers = pool.workers
    seats = [o.seat for o in (*workers.idle, *workers.starting.values(), *(o for o, _ in workers.busy.values()))]
    assert sorted(seats) == [0, 1]


def test_one_step_off_the_next_answers_are_drawn_with_the_weights_before_the_update():
    Worker.calls, Worker.deaths = 0, frozenset()
    pool = Pool(Ray(0), Worker, ClusterConfig(mode="one-step-off"))
    assert pool.draw(policy(1.0), request(3, 1), request(5, 2)) == answers(3, 1, 1.0)
    assert pool.draw(policy(2.0), request(5, 2), request(4, 3)) == answers(5, 2, 1.0)
    assert pool.draw(policy(3.0), request(4, 3), None) == answers(4, 3, 2.0)


def test_after_a_rollback_what_was_drawn_ahead_is_thrown_away():
    """The broken weights drew answers to the prompts of the next step; then an earlier step asks about others."""
    Worker.calls, Worker.deaths = 0, frozenset()
    pool = Pool(Ray(0), Worker, ClusterConfig(mode="one-step-off"))
    assert pool.draw(policy(float("nan")), request(4, 7), request(4, 8))[0][0][:2] == ("p0", 7)
    assert pool.draw(policy(2.0), request(4, 5), request(4, 6)) == answers(4, 5, 2.0)
    assert pool.draw(policy(3.0), request(4, 6), None) == answers(4, 6, 2.0)


def test_workers_that_always_die_end_the_run():
    Worker.calls, Worker.deaths = 0, frozenset(range(1000))
    with pytest.raises(Died):
        Pool(Ray(0), Worker, ClusterConfig()).draw(policy(1.0), request(3, 1), None)
    assert Worker.calls <= FAILURES + 5
