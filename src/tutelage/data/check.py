"""`tutelage data check`: what a file holds and what is wrong with it, all of it, before anything is trained.

Faults stop training (exit status 2); remarks are what a careful person would want to know: equal answers, a taste
for length in the labels, one pair labeled both ways, prompts that stand in two splits.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.data.foreign import format_of, items_of
from tutelage.data.formats import data_files, read_rows
from tutelage.data.sources import (
    DEGENERATE_ROWS,
    DEGENERATE_SHARE,
    FileContent,
    content_key,
    dropped_line,
    is_world,
    load_data,
)
from tutelage.data.validation import DegenerateRow
from tutelage.errors import UserError
from tutelage.records import Comparison, Dataset, Message

MOST_FAULTS = 20
WORLD_SAMPLE = 512


@dataclass
class FileReport:
    """One file: rows by format, faults (at most 20 are kept, all are counted), degenerate rows."""

    path: str
    rows: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    fault_count: int = 0
    degenerate: int = 0
    degenerate_line: str | None = None


@dataclass
class Report:
    """What `check` found. `ok` says that training will accept the data."""

    spec: str
    files: list[FileReport] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    statistics: dict[str, float | int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(not file.faults for file in self.files)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """The report for a terminal."""
        out = []
        for file in self.files:
            kinds = ", ".join(f"{count:,} {name}" for name, count in file.formats.items()) or "no rows"
            out.append(f"{file.path}: {kinds}")
            out += [f"  fault  {fault}" for fault in file.faults]
            if file.fault_count > len(file.faults):
                out.append(f"  … and {file.fault_count - len(file.faults):,} more")
            if file.degenerate_line and not file.faults:
                out.append(f"  note   {file.degenerate_line}")
        if self.counts:
            out.append("holds   " + ", ".join(f"{count:,} {name}" for name, count in self.counts.items() if count))
            out.append("splits  " + ", ".join(f"{name} {count:,}" for name, count in self.splits.items()) + " prompts")
        for name, value in self.statistics.items():
            shown = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
            out.append(f"  {name.replace('_', ' '):<32} {shown}")
        out += [f"remark  {remark}" for remark in self.remarks]
        out.append("sound: training will accept it" if self.ok else "not sound: mend the faults above")
        return out

    def raise_if_broken(self) -> None:
        """UserError with the first fault, and the number of the others."""
        for file in self.files:
            if file.faults:
                more = sum(f.fault_count for f in self.files) - 1
                raise UserError(file.faults[0] + (f"\n  and {more:,} more faults" if more else ""))


def check(spec: str, tokenizer: Any = None, max_length: int | None = None) -> Report:
    """Look at every row of a file or folder, or at a sample of the world; a tokenizer adds token counts."""
    report = Report(str(spec))
    if not is_world(spec):
        report.files = [_check_file(str(path)) for path in data_files(spec)]
        if not report.ok:
            return report
    limit = WORLD_SAMPLE if is_world(spec) else None
    try:
        dataset = load_data(spec, "all", limit)
    except UserError as error:  # faults between rows and files: ids, missing completions
        report.files[-1].faults.append(error.message)
        report.files[-1].fault_count += 1
        return report
    report.counts = {name: len(value) for name, value in vars(dataset).items()}
    parts = {split: load_data(spec, split, limit) for split in ("train", "tune", "report")}
    report.splits = {split: len(part.prompts) for split, part in parts.items()}
    _describe(report, dataset)
    _leaks(report, parts)
    if tokenizer is not None:
        _tokens(report, dataset, tokenizer, max_length)
    return report


def _check_file(path: str) -> FileReport:
    report, content = FileReport(path), FileContent(path)
    formats: Counter[str] = Counter()
    try:
        for number, row in read_rows(path):
            content.rows += 1
            try:
                items_of(row, f"{path}, row {number}")
                formats[format_of(row)] += 1
            except DegenerateRow as error:
                content.dropped.append(error)
            except UserError as error:
                report.faults.append(error.message)
    except UserError as error:  # what comes after cannot be read
        report.faults.append(error.message)
    if content.rows == 0 and not report.faults:
        report.faults.append(UserError("is empty", where=path, mend="give a file with at least one row").message)
    if content.dropped:
        report.degenerate_line = dropped_line(content)
        if content.rows < DEGENERATE_ROWS or len(content.dropped) >= DEGENERATE_SHARE * content.rows:
            report.faults += [error.message for error in content.dropped]
    report.rows, report.formats, report.degenerate = content.rows, dict(formats), len(content.dropped)
    report.fault_count = len(report.faults)
    del report.faults[MOST_FAULTS:]
    return report


def _describe(report: Report, dataset: Dataset) -> None:
    numbers, remark = report.statistics, report.remarks.append
    prompts = Counter(content_key(p.messages) for p in dataset.prompts)
    numbers["duplicate_prompts"] = sum(count - 1 for count in prompts.values())
    texts = [m["content"] for p in dataset.prompts for m in p.messages] + dataset.texts
    texts += [text for c in dataset.comparisons for text in c.completions or []]
    if texts:
        numbers["prompts_and_answers_not_ascii"] = sum(not text.isascii() for text in texts) / len(texts)
    if dataset.comparisons:
        _describe_comparisons(report, dataset.comparisons)
    demonstrations = Counter(content_key(d.messages) for d in dataset.demonstrations)
    numbers["duplicate_demonstrations"] = sum(count - 1 for count in demonstrations.values())
    if numbers["duplicate_demonstrations"]:
        remark(f"{numbers['duplicate_demonstrations']:,} demonstrations stand there twice")


def _describe_comparisons(report: Report, comparisons: Sequence[Comparison]) -> None:
    numbers, remark = report.statistics, report.remarks.append
    pairs = [pair for one in comparisons for pair in ranked_pairs(one)]
    numbers["pairs"] = len(pairs)
    numbers["completions_a_comparison"] = sum(len(c.completion_ids) for c in comparisons) / len(comparisons)
    numbers["comparisons_with_ties"] = sum(_has_tie(c) for c in comparisons)
    numbers["labelers"] = len({c.labeler for c in comparisons if c.labeler})
    unequal = [(len(better), len(worse)) for _, better, worse in pairs if len(better) != len(worse)]
    if unequal:
        share = sum(b > w for b, w in unequal) / len(unequal)
        numbers["longer_wins"] = share
        if abs(share - 0.5) > 0.1 and len(unequal) >= 50:
            taste = "longer" if share > 0.5 else "shorter"
            remark(f"the {taste} answer wins {max(share, 1 - share):.0%} of the pairs; a reward model will learn that")
    equal = sum(better == worse for _, better, worse in pairs)
    numbers["equal_answers_ranked_apart"] = equal
    if equal:
        remark(f"{equal:,} pairs rank one text above itself")
    numbers["empty_answers"] = sum(not text.strip() for c in comparisons for text in c.completions or [])
    votes = {(key, better, worse) for key, better, worse in pairs}
    both = sum((key, worse, better) in votes for key, better, worse in votes) // 2
    numbers["pairs_labeled_both_ways"] = both
    repeated = len(pairs) - len(votes)
    numbers["repeated_pairs"] = repeated
    if repeated:
        remark(f"{repeated:,} pairs stand there more than once with the same order")


def ranked_pairs(comparison: Comparison) -> list[tuple[str, str, str]]:
    """(prompt's text, better answer, worse answer) for each pair that is ranked apart."""
    key, texts = content_key(comparison.messages or []), comparison.completions or []
    ranked = [(rank, text) for rank, text in zip(comparison.ranks, texts, strict=True) if rank is not None]
    below = [text for rank, text in zip(comparison.ranks, texts, strict=True) if rank is None and comparison.rest_below]
    pairs = [(key, a, b) for r, a in ranked for s, b in ranked if r < s]
    return pairs + [(key, a, b) for _, a in ranked for b in below]


def _has_tie(comparison: Comparison) -> bool:
    given = [rank for rank in comparison.ranks if rank is not None]
    return len(set(given)) < len(given)


def _leaks(report: Report, parts: dict[str, Dataset]) -> None:
    """Prompts that are equal but for white space and stand in two splits (by declared splits or spacing)."""
    keys = {split: {content_key(p.messages) for p in part.prompts} for split, part in parts.items()}
    leaked = (keys["train"] & keys["tune"]) | (keys["train"] & keys["report"]) | (keys["tune"] & keys["report"])
    report.statistics["prompts_in_two_splits"] = len(leaked)
    if leaked:
        report.remarks.append(f"{len(leaked):,} prompts stand in two splits, so held-out numbers will be too good")


def _tokens(report: Report, dataset: Dataset, tokenizer: Any, max_length: int | None) -> None:
    from tutelage.data.templates import render_many

    conversations: list[Sequence[Message]] = [d.messages for d in dataset.demonstrations]
    for one in dataset.comparisons:
        for text in one.completions or []:
            conversations.append([*(one.messages or []), {"role": "assistant", "content": text}])
    lengths = [len(rendered) for rendered in render_many(tokenizer, conversations)]
    if not lengths:
        return
    report.statistics["tokens"] = sum(lengths)
    report.statistics["longest_in_tokens"] = max(lengths)
    report.statistics["mean_in_tokens"] = sum(lengths) / len(lengths)
    if max_length is not None:
        cut = sum(length > max_length for length in lengths)
        report.statistics["truncated"] = cut
        if cut:
            report.remarks.append(f"{cut:,} of {len(lengths):,} conversations are longer than {max_length:,} tokens")
