"""A conversation without a terminal: lines in, answers out; and in a terminal, as it is seen."""

import fcntl
import io
import os
import pty
import select
import struct
import sys
import termios

import pytest
from rich.console import Console

from tutelage.cli.chat import ChatOptions, Talk, converse, gather_models, short_names
from tutelage.cli.main import main as command
from tutelage.errors import UserError


def talk_with(monkeypatch, said, nano, count=1):
    from tutelage.models import load_policy

    options = ChatOptions(max_new_tokens=4, dtype="float32")
    talks = [Talk(f"m{i}", load_policy(nano, "float32"), options) for i in range(count)]
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    converse(talks, Console(file=out))
    return talks, out.getvalue()


def test_several_turns_are_kept_and_forgotten(monkeypatch, nano):
    talks, shown = talk_with(monkeypatch, "Hello.\nWho are you?\n", nano)
    assert [m["role"] for m in talks[0].messages] == ["user", "assistant"] * 2
    assert shown.count("m0: ") == 2 and talks[0].messages[1]["content"] in shown
    talks, _ = talk_with(monkeypatch, "Hello.\n/new\nWho are you?\n/quit\nnever read\n", nano)
    assert talks[0].messages[0]["content"] == "Who are you?" and len(talks[0].messages) == 2


def test_two_models_answer_each_from_its_own_conversation(monkeypatch, nano):
    talks, shown = talk_with(monkeypatch, "Hello.\n", nano, count=2)
    assert "m0: " in shown and "m1: " in shown
    assert talks[0].messages == talks[1].messages  # one checkpoint, one seed: one answer


def test_models_are_gathered_and_named():
    assert gather_models(["--model", "a", "--seed", "1", "--model=b"]) == ["--model", "a", "b", "--seed", "1"]
    assert gather_models(["--seed", "1"]) == ["--seed", "1"]
    assert short_names(("runs/q/sft/checkpoints/latest", "runs/q/ppo")) == ["sft", "ppo"]
    assert short_names(("a/sft", "b/sft")) == ["a/sft", "b/sft"]
    for wrong in ({"model": ()}, {"model": ("a", "b", "c")}, {"temperature": -1.0}, {"top_p": 0.0}):
        with pytest.raises(UserError):
            ChatOptions(**wrong)


def test_a_long_conversation_forgets_its_oldest_turns(monkeypatch, nano):
    talks, shown = talk_with(monkeypatch, "".join(f"{i} {'word ' * 120}\n" for i in range(8)), nano)
    kept = [m["content"].split()[0] for m in talks[0].messages if m["role"] == "user"]
    assert kept == ["5", "6", "7"] and shown.count("m0: ") == 8
    talks, shown = talk_with(monkeypatch, f"Hello.\n{'word ' * 600}\nAnd now?\n", nano)
    assert "more than the 508 that the model has room for" in shown
    assert [m["content"] for m in talks[0].messages if m["role"] == "user"] == ["Hello.", "And now?"]


class Terminal:
    """`tutelage chat` in a pseudo-terminal of its own."""

    def __init__(self, *words):
        self.shown, self.read = "", 0
        self.child, self.main = pty.fork()
        if self.child == 0:
            status: object = 99
            try:
                sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, "w" if fd else "r") for fd in range(3))
                os.environ["TERM"] = "xterm"
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
                command(["chat", *map(str, words)])
            except SystemExit as left:
                status = left.code
            finally:
                sys.stdout.flush()
                os._exit(int(str(status)))

    def more(self):
        """Wait for what comes next; the empty string at the end."""
        assert select.select([self.main], [], [], 120)[0], f"nothing comes after {self.shown!r}"
        try:
            part = os.read(self.main, 4096).decode(errors="replace")
        except OSError:  # Linux reports the closed terminal so
            part = ""
        self.shown += part
        return part

    def wait_for(self, text):
        while text not in self.shown[self.read :]:
            assert self.more(), f"{text!r} is not in {self.shown!r}"
        self.read = self.shown.index(text, self.read) + len(text)

    def say(self, text):
        self.wait_for("you: ")
        os.write(self.main, text.encode())

    def status(self):
        while self.more():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])


def test_in_a_terminal_answers_stream_and_ctrl_c_ends_one_but_not_the_conversation(nano):
    terminal = Terminal("--model", nano, "--max-new-tokens", "480", "--dtype", "float32")
    terminal.say("Hello.\n")
    terminal.wait_for(f"{nano.parent.name}: ")
    terminal.more()  # the answer has begun, and is not over
    os.write(terminal.main, b"\x03")
    terminal.wait_for("…")
    terminal.say("/new\n")
    terminal.say("\x04")
    assert terminal.status() == 0 and "Traceback" not in terminal.shown


def test_in_a_terminal_two_models_answer_side_by_side_over_several_turns(nano):
    terminal = Terminal("--model", nano, "world", "--max-new-tokens", "6", "--dtype", "float32")
    terminal.say("Hello.\n")
    terminal.say("Who are you?\n")
    terminal.say("/quit\n")
    assert terminal.status() == 0 and "Traceback" not in terminal.shown
    heads = [line for line in terminal.shown.split("\n") if nano.parent.name in line and "world" in line]
    assert len(heads) >= 2, "both names head one line, at each turn"
