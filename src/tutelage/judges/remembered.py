"""A chat whose replies are kept as they come: what was paid for is not asked again after a kill."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.judges.cache import Cache, Reply, key_of
from tutelage.judges.chats import Answered, Chat, ChatFailedError
from tutelage.records import Message


@dataclass
class RememberedChat:
    """about: how the chat is asked beside the words (temperature, longest answer): a part of the key. Failures are not
    kept, so that they are asked again."""

    chat: Chat
    cache: Cache
    about: Any = None

    def __post_init__(self) -> None:
        self.name = self.chat.name

    def answers(
        self, conversations: Sequence[list[Message]], answered: Answered | None = None
    ) -> list[Reply | ChatFailedError]:
        keys = [key_of(self.name, messages, self.about) for messages in conversations]
        missing = [i for i, key in enumerate(keys) if self.cache.get(key) is None]

        def keep(place: int, reply: Reply) -> None:
            self.cache.put(keys[missing[place]], reply)
            if answered is not None:
                answered(missing[place], reply)

        new = self.chat.answers([conversations[i] for i in missing], keep) if missing else []
        asked = dict(zip(missing, new, strict=True))
        found: list[Reply | ChatFailedError] = []
        for i, key in enumerate(keys):
            reply = asked[i] if i in asked else self.cache.get(key)
            assert reply is not None
            found.append(reply)
        return found
