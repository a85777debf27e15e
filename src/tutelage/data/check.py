"""`tutelage data check`: what a file holds and what is wrong with it, all of it, before anything is trained.

Faults stop training (exit status 2); remarks are what a careful person would want to know: equal answers, a taste
for length in the labels, one pair labeled both ways, prompts that stand in two splits, personal data.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.data import pii
from tutelage.data.export import ordered_pairs
from tutelage.data.sources import Contents, assemble, left_out, read_contents, split_of, unique_records
from tutelage.errors import UserError
from tutelage.records import Comparison, Dataset, Message

MOST_FAULTS = 20
EXAMPLES = 3
LENGTH_BIAS = 0.1  # the longer answer's share of wins may differ from a half by so much without a remark


@dataclass
class Report:
    """What `check` found. `ok` says that training will accept the data."""

    spec: str
    ok: bool = True
    files: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    statistics: dict[str, float | int] = field(default_factory=dict)
    pii: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    remarks: list[dict[str, Any]] = field(default_factory=list)
    first_fault: UserError | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "first_fault"}

    def remark(self, name: str, text: str, examples: Sequence[Any] = ()) -> None:
        self.remarks.append({"name": name, "text": text, "examples": list(examples)[:EXAMPLES]})

    def lines(self) -> list[str]:
        """The report for a terminal."""
        out = []
        for file in self.files:
            kinds = ", ".join(f"{count:,} {name}" for name, count in file["formats"].items()) or "no rows"
            out.append(f"{file['path']}: {kinds}")
            out += [f"  fault  {fault}" for fault in file["faults"]]
            if file["fault_count"] > len(file["faults"]):
                out.append(f"  … and {file['fault_count'] - len(file['faults']):,} more")
            if file["left_out"]:
                out.append(f"  note   {file['left_out']}")
        if self.counts:
            out.append("holds   " + ", ".join(f"{count:,} {name}" for name, count in self.counts.items() if count))
            out.append("splits  " + ", ".join(f"{name} {count:,}" for name, count in self.splits.items()) + " prompts")
        for name, value in {**self.statistics, **self.tokens}.items():
            out.append(f"  {name.replace('_', ' '):<34} {_shown(value)}")
        for remark in self.remarks:
            out.append(f"remark  {remark['text']}")
            out += [f"          {example}" for example in remark["examples"]]
        return [*out, "sound: training will accept it" if self.ok else "not sound: mend the faults above"]

    def raise_if_broken(self) -> None:
        """UserError with the first fault, and the number of the others."""
        if self.first_fault:
            more = sum(file["fault_count"] for file in self.files) - 1
            what = self.first_fault.what + (f" (and {more:,} more faults)" if more > 0 else "")
            raise UserError(what, where=self.first_fault.where, mend=self.first_fault.mend)


def check(spec: str, *, against: str | None = None, tokenizer: Any = None, max_length: int = 1024) -> Report:
    """Look at every row of a file or folder. against: other data that must share no prompt; tokenizer: a model's."""
    report = Report(spec)
    contents = read_contents(spec)
    for one in contents:
        _check_file(report, one)
    if report.first_fault:
        return report
    try:
        data, declared = assemble(contents)
    except UserError as error:  # faults between rows and files: ids, missing answers
        report.ok, report.first_fault = False, error
        report.files[-1]["faults"].append(error.message)
        report.files[-1]["fault_count"] += 1
        return report
    places = {record.id: place for place, record in unique_records(contents)}
    data.demonstrations = [d for d in data.demonstrations if d.id in places]  # not those derived from comparisons
    report.counts = {name: len(value) for name, value in vars(data).items()}
    report.splits = dict(Counter(split_of(p.id, declared) for p in data.prompts))
    _repeats(report, data, places)
    if data.comparisons:
        _comparisons(report, data.comparisons, places)
    _leaks(report, data, declared, places)
    if against is not None:
        _shared(report, data, against, places)
    _personal(report, contents)
    if tokenizer is not None:
        _tokens(report, data, tokenizer, max_length)
    return report


def _shown(value: float | str | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        text = value.replace("\n", "⏎")
        return text if len(text) <= 160 else f"{text[:120]} … {text[-38:]}"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def prompt_key(messages: Sequence[Message]) -> str:
    """A text that is equal for prompts that differ in white space and case only."""
    return json.dumps([[m["role"], " ".join(m["content"].lower().split())] for m in messages], ensure_ascii=False)


def _check_file(report: Report, one: Contents) -> None:
    faults = [*one.faults, *(one.degenerate if one.too_degenerate else [])]
    report.files.append(
        {
            "path": one.path,
            "rows": one.rows,
            "formats": dict(one.formats),
            "faults": [fault.message for fault in faults[:MOST_FAULTS]],
            "fault_count": len(faults),
            "left_out": left_out(one) if one.degenerate and not one.too_degenerate else None,
        }
    )
    if faults:
        report.ok = False
        report.first_fault = report.first_fault or faults[0]


def _repeats(report: Report, data: Dataset, places: dict[str, str]) -> None:
    prompts = Counter(prompt_key(p.messages) for p in data.prompts)
    report.statistics["duplicate_prompts"] = sum(prompts.values()) - len(prompts)
    written: dict[str, list[str]] = {}
    for one in data.demonstrations:
        written.setdefault(prompt_key(one.messages), []).append(one.id)
    twice = [ids for ids in written.values() if len(ids) > 1]
    report.statistics["duplicate_demonstrations"] = sum(len(ids) - 1 for ids in twice)
    if twice:
        where = [places.get(ids[1], ids[1]) for ids in twice]
        report.remark("duplicates", f"{len(twice):,} demonstrations stand there more than once", where)


def _comparisons(report: Report, comparisons: Sequence[Comparison], places: dict[str, str]) -> None:
    numbers = report.statistics
    pairs = [(one.id, prompt_key(one.messages or []), *pair) for one in comparisons for pair in ordered_pairs(one)]
    numbers["pairs"] = len(pairs)
    numbers["answers_a_comparison"] = sum(len(one.ranks) for one in comparisons) / len(comparisons)
    numbers["comparisons_with_ties"] = sum(_has_tie(one) for one in comparisons)
    numbers["labelers"] = len({one.labeler for one in comparisons if one.labeler})
    unequal = [len(better) > len(worse) for _, _, better, worse in pairs if len(better) != len(worse)]
    if unequal:
        share = numbers["longer_answer_wins"] = sum(unequal) / len(unequal)
        if abs(share - 0.5) > LENGTH_BIAS and len(unequal) >= 50:
            taste = "longer" if share > 0.5 else "shorter"
            rate = max(share, 1 - share)
            report.remark(
                "length bias", f"the {taste} answer wins {rate:.0%} of the pairs; a reward model will learn that"
            )
    equal = [name for name, _, better, worse in pairs if " ".join(better.split()) == " ".join(worse.split())]
    numbers["equal_answers_ranked_apart"] = len(equal)
    if equal:
        text = f"{len(equal):,} pairs rank an answer above one that differs in white space only"
        report.remark("equal answers", text, [places.get(name, name) for name in equal])
    votes = Counter((key, better, worse) for _, key, better, worse in pairs)
    both = [vote for vote in votes if (vote[0], vote[2], vote[1]) in votes]
    numbers["pairs_labeled_both_ways"] = len(both) // 2
    repeated = sum(votes.values()) - len(votes)
    numbers["repeated_pairs"] = repeated
    if repeated:
        seen: set[tuple[str, str, str]] = set()
        where: list[str] = []
        for name, *vote in pairs:
            if tuple(vote) in seen and len(where) < EXAMPLES:
                where.append(places.get(name, name))
            seen.add(tuple(vote))  # type: ignore[arg-type]
        report.remark("duplicates", f"{repeated:,} pairs stand there more than once with the same order", where)


def _has_tie(comparison: Comparison) -> bool:
    given = [rank for rank in comparison.ranks if rank is not None]
    return len(set(given)) < len(given)


def _leaks(report: Report, data: Dataset, declared: dict[str, str], places: dict[str, str]) -> None:
    """Prompts that are equal but for white space and case, and stand in two splits."""
    splits: dict[str, dict[str, str]] = {}
    for prompt in data.prompts:
        splits.setdefault(prompt_key(prompt.messages), {})[split_of(prompt.id, declared)] = prompt.id
    leaked = [where for where in splits.values() if len(where) > 1]
    report.statistics["prompts_in_two_splits"] = len(leaked)
    if leaked:
        shown = ["; ".join(f"{split}: {places.get(i, i)}" for split, i in where.items()) for where in leaked[:EXAMPLES]]
        text = f"{len(leaked):,} prompts stand in two splits, so held-out numbers will be too good"
        report.remark("leakage", text, shown)


def _shared(report: Report, data: Dataset, against: str, places: dict[str, str]) -> None:
    other, _ = assemble(read_contents(against))
    keys = {prompt_key(p.messages) for p in other.prompts}
    shared = [p.id for p in data.prompts if prompt_key(p.messages) in keys]
    report.statistics["prompts_shared"] = len(shared)
    if shared:
        text = f"{len(shared):,} prompts stand in {against} too"
        report.remark("leakage", text, [places.get(i, i) for i in shared])


def _personal(report: Report, contents: list[Contents]) -> None:
    def texts() -> Any:
        for one in contents:
            for number, item in one.items:
                for text in [item] if isinstance(item, str) else set(_strings(item.to_json())):
                    yield f"{one.path}, row {number}", text

    seen: set[str] = set()
    report.pii = pii.find((place, text) for place, text in texts() if not (text in seen or seen.add(text)))  # type: ignore[func-returns-value]
    for name, found in report.pii.items():
        report.statistics[f"pii_{name}"] = found["count"]
        if found["count"]:
            shown = [f"{one['where']}: {one['text']}" for one in found["examples"]]
            text = f"{found['count']:,} times what looks like {_NAMES[name]}, in {found['texts']:,} texts"
            report.remark("pii", text, shown)


_NAMES = {"email": "an e-mail address", "phone": "a phone number", "key": "a secret key"}


def _strings(value: Any) -> list[str]:
    """What people and models wrote in a record: its long fields, not its ids."""
    texts = [m["content"] for m in value.get("messages") or []]
    single = [value.get("text") or "", value.get("completion") or ""]
    return [*texts, *(value.get("completions") or []), *(value.get("steps") or []), *single]


def _tokens(report: Report, data: Dataset, tokenizer: Any, max_length: int) -> None:
    """The pre-flight check of training: lengths, truncation, end token, template."""
    from tutelage.data.templates import end_of_turn, preflight, render

    conversations = [d.messages for d in data.demonstrations]
    answers = [(one.messages or [], text) for one in data.comparisons for text in one.completions or []]
    answers += [(one.messages, one.completion) for one in data.thumbs]
    conversations += [[*messages, {"role": "assistant", "content": text}] for messages, text in answers]
    try:
        end = end_of_turn(tokenizer)
        rendered = [render(tokenizer, messages) for messages in conversations]
        found = preflight(tokenizer, rendered, max_length, [messages[:-1] for messages in conversations])
    except UserError as error:
        report.ok, report.first_fault = False, error
        report.files[-1]["faults"].append(error.message)
        report.files[-1]["fault_count"] += 1
        return
    specials = [token for token in tokenizer.all_special_tokens if len(token) > 1]
    inside = sum(any(token in m["content"] for token in specials for m in messages) for messages in conversations)
    report.tokens = {
        "tokens": found.tokens,
        "tokens_that_carry_loss": found.trained_tokens,
        "longest_in_tokens": found.longest,
        "truncated": found.truncated,
        "end_token": end.strip(),
        "end_token_trained": found.end_tokens_trained,
        "special_tokens_in_text": inside,
        "template": found.template,
        "same_template_when_serving": found.same_when_serving,
        "first_one": found.example,
    }
    if found.truncated:
        count = len(conversations)
        text = (
            f"{found.truncated:,} of {count:,} conversations are longer than {max_length:,} tokens and lose their end"
        )
        report.remark("truncation", text)
    if inside:
        report.remark("template", f"{inside:,} conversations hold the tokenizer's special tokens as text")
    if not found.same_when_serving:
        report.remark("template", "the template gives prompts other tokens in training than in serving")
