"""Several processes that answer at one socket: forked, watched, started again when one dies, ended together."""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

from tutelage.errors import UserError

POLL = 0.1  # seconds between looks at the workers
YOUNG = 2.0  # a worker that lived no longer than so many seconds ended at its start
MOST_YOUNG = 10  # so many of them, one after another: it will not get better
GRACE = 15.0  # seconds in which workers finish their requests at the end


class Workers:
    """`count` forked processes that do `work`. The parent answers nothing: it watches, and passes SIGTERM on.

    All workers accept from the same listening socket, so that what one has not taken yet waits for the others when it
    is killed. A worker ends with its parent, however that ends: it reads from a pipe that only the parent could write.
    """

    def __init__(self, count: int, work: Callable[[], None]):
        self.count, self.work = count, work
        self.started: dict[int, float] = {}
        self.ending = False
        self._life = os.pipe()

    def run(self) -> None:
        """Until SIGTERM or Ctrl-C; UserError where workers do not get beyond their start."""
        before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        young = 0
        try:
            while not self.ending:
                while len(self.started) < self.count and not self.ending:
                    self._fork()
                time.sleep(POLL)
                for pid, status, age in self._ended():
                    young = young + 1 if age < YOUNG else 0
                    if not self.ending:
                        print(f"feedback: worker {pid} ended ({status}); another one starts", file=sys.stderr)
                if young >= MOST_YOUNG:
                    mend = "see what the workers said above"
                    raise UserError(f"the last {young} workers ended as soon as they had started", mend=mend)
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, _: int, __: FrameType | None) -> None:
        self.ending = True

    def _fork(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self.started[pid] = time.monotonic()
            return
        status = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            if self.ending:  # told before it listened to that itself
                os._exit(0)
            os.close(self._life[1])
            threading.Thread(target=self._end_with_parent, daemon=True, name="parent").start()
            self.work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _end_with_parent(self) -> None:
        os.read(self._life[0], 1)  # returns when nobody is left who could write
        os.kill(os.getpid(), signal.SIGTERM)

    def _ended(self) -> list[tuple[int, str, float]]:
        """(process, how it ended, the seconds that it lived) of the workers that have gone since the last look."""
        found = []
        for pid, started in list(self.started.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self.started[pid]
                code = os.waitstatus_to_exitcode(status)
                how = f"signal {-code}" if code < 0 else f"status {code}"
                found.append((pid, how, time.monotonic() - started))
        return found

    def _stop(self) -> None:
        """SIGTERM to all; SIGKILL to those that have not ended after a while."""
        last = time.monotonic() + GRACE
        self._signal(signal.SIGTERM)
        while self.started and time.monotonic() < last:
            self._ended()
            time.sleep(POLL / 4)
        self._signal(signal.SIGKILL)
        while self.started:
            self._ended()
        for end in self._life:
            os.close(end)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
