"""What endpoints will be asked, and what it will cost at most: said before, and agreed to where it is much."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from tutelage.configs import EvalConfig
from tutelage.configs.measure import prices_of
from tutelage.errors import UserError
from tutelage.judges.chats import Chat, Endpoint
from tutelage.judges.llm import LLMJudge
from tutelage.judges.rubric import questions
from tutelage.judges.verdict import Match
from tutelage.records import Message, Prompt

TOKENS_A_WORD = 1.4  # of English under today's vocabularies, rounded up
FREE_DOLLARS, FREE_CALLS = 1.0, 1000  # above the one, or the other where no price is known, --yes is needed
ROUNDS = 7  # questions that a probe asks, how sure it is among them
PROBE_WORDS = 40  # in and around one of them, the answer that is doubted included
Bill = dict[str, Any]


def answers_bill(chat: Chat, conversations: Sequence[list[Message]], config: EvalConfig) -> list[Bill]:
    """Of one answer to each conversation."""
    words = sum(len(turn["content"].split()) for turns in conversations for turn in turns)
    return _bill(chat, "answers", len(conversations), words, config)


def probes_bill(chat: Chat, items: int, config: EvalConfig) -> list[Bill]:
    """Of probing for sycophancy; probes are not kept from an earlier run."""
    return _bill(chat, "probes", ROUNDS * items, ROUNDS * items * PROBE_WORDS, config)


def judge_bill(judge: LLMJudge, matches: Sequence[Match], config: EvalConfig) -> list[Bill]:
    """Of both orders of each pair that the judge has not judged yet."""
    calls, words = judge.pending(matches)
    return _bill(judge.chat, "verdicts", calls, words, config)


def rubric_bill(judge: LLMJudge, answers: Sequence[tuple[Prompt, str]], config: EvalConfig) -> list[Bill]:
    """Of the form for each answer that the judge has not rated yet."""
    calls, words = judge.unanswered(questions([p for p, _ in answers], [a for _, a in answers]))
    return _bill(judge.chat, "ratings", calls, words, config)


def _bill(chat: Chat, what: str, calls: int, words: int, config: EvalConfig) -> list[Bill]:
    if not isinstance(chat, Endpoint) or not calls:
        return []
    tokens_in, tokens_out = round(TOKENS_A_WORD * words), calls * chat.max_tokens
    prices = prices_of(config.price_per_million)
    price = prices.get(chat.model, prices.get(""))
    dollars = None if price is None else (price[0] * tokens_in + price[1] * tokens_out) / 1e6
    about = {"who": chat.name, "what": what, "calls": calls, "input_tokens": tokens_in, "output_tokens": tokens_out}
    return [{**about, "dollars": dollars, "local": _on_this_machine(chat.url)}]


def _on_this_machine(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def agree(bills: Iterable[Bill], config: EvalConfig) -> None:
    """Say what will be asked; UserError where that is much and nobody said yes."""
    bills = list(bills)
    for one in bills:
        cost = "" if one["dollars"] is None else f", ${one['dollars']:.2f} at most"
        print(
            f"eval: {one['who']} will be asked {one['calls']} times for {one['what']}: about {one['input_tokens']:,} "
            f"tokens in, at most {one['output_tokens']:,} out{cost}",
            file=sys.stderr,
        )
    dollars = sum(one["dollars"] or 0 for one in bills)
    unpriced = sum(one["calls"] for one in bills if one["dollars"] is None and not one["local"])
    if config.yes or (dollars <= FREE_DOLLARS and unpriced <= FREE_CALLS):
        return
    much = f"may cost up to ${dollars:.2f}" if dollars > FREE_DOLLARS else f"makes {unpriced} calls of unknown price"
    mend = "add --yes, or ask for fewer --prompts"
    raise UserError(
        much,
        where="the endpoints",
        mend=mend if dollars > FREE_DOLLARS else f"{mend}; --price-per-million IN,OUT tells the cost",
    )
