"""Replies of an endpoint are kept as they come, and asked for once."""

import pytest

from tutelage.judges.cache import Cache, Reply
from tutelage.judges.chats import ChatFailedError
from tutelage.judges.remembered import RememberedChat

ASKED = [[{"role": "user", "content": text}] for text in ("one", "two", "three")]


class Paid:
    name = "openai:here#m"

    def __init__(self, dies_at=None):
        self.asked, self.dies_at = [], dies_at

    def answers(self, conversations, answered=None):
        found = []
        for place, messages in enumerate(conversations):
            said = messages[0]["content"]
            if said == self.dies_at:
                raise KeyboardInterrupt
            self.asked.append(said)
            found.append(ChatFailedError("timed out") if said == "two" else Reply(said.upper(), "stop"))
            if isinstance(found[-1], Reply):
                answered(place, found[-1])
        return found


def test_what_was_paid_for_before_a_kill_is_not_asked_again(tmp_path):
    dying = Paid(dies_at="three")
    with pytest.raises(KeyboardInterrupt):
        RememberedChat(dying, Cache(tmp_path / "critic.jsonl"), [1.0]).answers(ASKED)
    again = Paid()
    seen = []
    chat = RememberedChat(again, Cache(tmp_path / "critic.jsonl"), [1.0])
    found = chat.answers(ASKED, lambda place, reply: seen.append((place, reply)))
    assert again.asked == ["two", "three"] and seen == [(2, "THREE")]  # what failed is asked again
    assert found[0] == "ONE" and isinstance(found[1], ChatFailedError) and found[2].finish == "stop"
    other = Paid()
    RememberedChat(other, Cache(tmp_path / "critic.jsonl"), [0.5]).answers(ASKED)
    assert other.asked == ["one", "two", "three"]  # asked in another way
