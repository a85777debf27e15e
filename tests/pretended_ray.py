"""A stand-in for Ray: what is asked is computed when it is looked at, in random order, and who dies when is chosen."""

import random
from types import SimpleNamespace


class Died(Exception):
    pass


class Ray:
    """Futures that are ready in random order; a future of a worker that died raises."""

    exceptions = SimpleNamespace(RayActorError=Died)

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def put(self, value):
        return value

    def wait(self, futures, num_returns, timeout):
        chosen = self.draw.choice(futures)
        return [chosen], [f for f in futures if f is not chosen]

    def get(self, future):
        return future()

    def kill(self, worker):
        assert worker.dead


class Actor:
    """An object behind Ray's `method.remote(...)`; dies at those of all actors' calls whose numbers are in `deaths`."""

    def __init__(self, one, calls, deaths=()):
        """calls: counts the calls of all actors that share it."""
        self._one, self._calls, self._deaths, self.dead = one, calls, deaths, False

    def __getattr__(self, method):
        return SimpleNamespace(remote=lambda *arguments: self._future(method, arguments))

    def _future(self, method, arguments):
        dies = next(self._calls) in self._deaths

        def future():
            if dies or self.dead:
                self.dead = True
                raise Died("the actor died")
            return getattr(self._one, method)(*arguments)

        return future
