"""An answer of OpenAI's API as it comes: server-sent events, of which none may be missing at the end."""

import http.client
import json
import urllib.error
from collections.abc import Iterator

from tutelage.errors import UserError
from tutelage.judges.cache import Reply
from tutelage.judges.chats import BARRED, CUT, PASSING, ChatFailedError, Endpoint
from tutelage.records import Message


def streamed(endpoint: Endpoint, messages: list[Message]) -> Iterator[str | Reply]:
    """The answer's pieces, then the whole with how it ended. One attempt: whoever reads along can ask again.

    ChatFailedError where it breaks off or says nothing that we understand, UserError where it refuses.
    """
    whole, finish = "", ""
    try:
        with endpoint.open({**endpoint.body(messages), "stream": True}) as reply:
            for line in reply:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    break
                event = json.loads(data)
                if "error" in event:
                    raise ChatFailedError(str(event["error"])[:300])
                for choice in event["choices"][:1]:
                    if piece := (choice.get("delta") or {}).get("content"):
                        whole += piece
                        yield piece
                    finish = choice.get("finish_reason") or finish
    except urllib.error.HTTPError as error:
        reason = f"status {error.code} {error.read().decode('utf-8', 'replace')[:300]}"
        if error.code in PASSING:
            raise ChatFailedError(reason) from error
        raise UserError(
            f"refuses: {reason}", where=endpoint.name, mend="check the URL, the model and the key"
        ) from error
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChatFailedError(f"{type(error).__name__}: {error}") from error
    if not finish:  # a stream that is cut off looks like one that ends
        raise ChatFailedError("the answer broke off")
    yield Reply(whole, "length" if finish in (*CUT, *BARRED) else "stop")
