"""The first Ctrl-C asks, the second ends; handlers are put back."""

import os
import signal
import threading

import pytest

from tutelage.runs import Interrupt
from tutelage.runs.signals import NOTICE, SIGNALS


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_asks_and_says_so(number, capfd):
    with Interrupt() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert capfd.readouterr().err == f"\n{NOTICE}\n"


@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_ends_at_once(second):
    with pytest.raises(KeyboardInterrupt), Interrupt() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), second)
        raise AssertionError("went on after the second signal")


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_installed():
    seen = []

    def body():
        with Interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
