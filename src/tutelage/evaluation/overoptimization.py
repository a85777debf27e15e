"""Reward hacking: where proxy and gold part, and what the policy learned to say instead."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tutelage.errors import UserError
from tutelage.evaluation.intervals import clustered_interval

Point = dict[str, Any]
_WORD = re.compile(r"\w+(?:'\w+)?", re.UNICODE)


def curve(rows: Iterable[Mapping[str, Any]], gold_of: Callable[[Mapping[str, Any]], float]) -> list[Point]:
    """A PPO run's samples as one point per step, by step.

    `rows`: lines of samples.jsonl with `step`, `proxy`, `kl` (nats per answer), `tokens` (a count, or the
    tokens themselves) and, for the paired interval, `prompt_id`; `gold_of` gives a row's gold score.
    Each point: means `kl`, `proxy`, `gold`, `length`; `proxy_ci95` and `gold_ci95` over prompts; and
    `gold_change_ci95`, of the change since the first step on the same prompts. An interval is None
    where it is not known. Raises UserError at a row that lacks a field.
    Source of the picture: Gao, Schulman & Hilton (2023), "Scaling laws for reward model overoptimization", figure 1.
    """
    steps: dict[int, list[_Sample]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        try:
            tokens = row["tokens"]
            length = float(len(tokens)) if isinstance(tokens, Sequence) else float(tokens)
            scores = (float(row["kl"]), float(row["proxy"]), float(gold_of(row)), length)
            steps[int(row["step"])].append(_Sample(row.get("prompt_id", number), *scores))
        except KeyError as missing:
            raise UserError(
                f"row {number} has no field {missing}", where="samples.jsonl", mend="sample again with this version"
            ) from None
    points: list[Point] = []
    first: dict[Hashable, float] = {}
    for step in sorted(steps):
        samples = steps[step]
        point: Point = {"step": step}
        for name in ("kl", "proxy", "gold", "length"):
            point[name] = float(np.mean([getattr(s, name) for s in samples]))
        prompts = [s.prompt for s in samples]
        point["proxy_ci95"] = _interval([s.proxy for s in samples], prompts)
        point["gold_ci95"] = _interval([s.gold for s in samples], prompts)
        # The same prompts at every step: their differences vary far less than their scores.
        paired = [s for s in samples if s.prompt in first]
        point["gold_change_ci95"] = _interval([s.gold - first[s.prompt] for s in paired], [s.prompt for s in paired])
        if not points:
            first = _means(samples)
        points.append(point)
    return points


class _Sample(NamedTuple):
    prompt: Hashable
    kl: float
    proxy: float
    gold: float
    length: float


def _means(samples: Sequence[_Sample]) -> dict[Hashable, float]:
    by_prompt: dict[Hashable, list[float]] = defaultdict(list)
    for sample in samples:
        by_prompt[sample.prompt].append(sample.gold)
    return {prompt: float(np.mean(golds)) for prompt, golds in by_prompt.items()}


def _interval(values: Sequence[float], prompts: Sequence[Hashable]) -> list[float] | None:
    if not values:
        return None
    _, low, high = clustered_interval(values, prompts)
    return [low, high] if np.isfinite(low) else None  # JSON has no NaN


@dataclass(frozen=True)
class Outcome:
    """What a curve shows. `kind`: "exploited" (the proxy rose, gold ended below its start), "turned" (gold peaked
    and fell, but not below its start), "rose" (gold rose and held), "flat" (none of these). `sure`: the 95 %
    interval of gold's change since the start leaves out 0; None where no interval is known."""

    kind: str
    peak: int
    gold: tuple[float, float, float]  # first, peak, last
    proxy: tuple[float, float]  # first, last
    sure: bool | None


def outcome(points: Sequence[Mapping[str, Any]]) -> Outcome | None:
    """Judge a curve; None for fewer than two points.

    A fall is called one when it exceeds a tenth of the range that gold covers in the run, and the last value
    is the mean of the last two points, so that a single noisy evaluation does not decide.
    """
    if len(points) < 2:
        return None
    gold = np.array([float(p["gold"]) for p in points])
    proxy = np.array([float(p["proxy"]) for p in points])
    peak = int(gold.argmax())
    tail = 1 if len(points) < 4 else 2
    last_gold, last_proxy = float(gold[-tail:].mean()), float(proxy[-tail:].mean())
    fell = gold[peak] - last_gold > 0.1 * max(float(np.ptp(gold)), 1e-12) and peak < len(points) - 1
    change = points[-1].get("gold_change_ci95")
    if fell:
        kind = "exploited" if last_gold < gold[0] and last_proxy > proxy[0] else "turned"
    else:
        kind = "rose" if last_gold > gold[0] else "flat"
    return Outcome(
        kind=kind,
        peak=peak,
        gold=(float(gold[0]), float(gold[peak]), last_gold),
        proxy=(float(proxy[0]), last_proxy),
        sure=None if change is None else not change[0] <= 0 <= change[1],
    )


def verdict(points: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on a curve: whether gold followed the proxy, and where it turned."""
    found = outcome(points)
    if found is None:
        return "One evaluation only: no curve to judge."
    first, top, last = found.gold
    rose = found.proxy[1] > found.proxy[0]
    proxies = _path(*found.proxy)
    at = f"KL {float(points[found.peak]['kl']):.1f} (step {int(points[found.peak]['step'])})"
    ends = _path(first, top, last)
    below = ""
    if last < first:
        below = ", clearly below where it began" if found.sure else ", below where it began"
    if found.kind in ("exploited", "turned"):
        if found.peak == 0:
            while_ = f"Proxy rose ({proxies}) while gold" if rose else "Gold"
            return f"{while_} fell from the start ({_path(first, last)})."
        if rose:
            return f"Proxy rose ({proxies}); gold peaked at {at} and then fell{below} ({ends})."
        return f"Gold peaked at {at} and then fell{below} ({ends}); the proxy did not rise ({proxies})."
    if found.kind == "rose":
        follows = "Gold rose with the proxy" if rose else "Gold rose though the proxy did not"
        return f"{follows}: gold {_path(first, last)}, proxy {proxies}, KL {float(points[-1]['kl']):.1f}."
    return f"Gold did not rise ({_path(first, last)}); proxy {proxies}."


def _path(*values: float) -> str:
    return " → ".join(f"{value:.2f}" for value in values).replace("-", "−")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _grams(texts: Sequence[str], sizes: Iterable[int]) -> Counter[tuple[str, ...]]:
    """In how many texts each phrase occurs."""
    seen: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = _words(text)
        seen.update({tuple(words[i : i + n]) for n in sizes for i in range(len(words) - n + 1)})
    return seen


def _phrases(early: Sequence[str], late: Sequence[str], most: int = 3) -> list[tuple[str, float, float]]:
    """Phrases of 1-5 words whose share of texts rose most: (phrase, share before, share after)."""
    before, after = _grams(early, range(1, 6)), _grams(late, range(1, 6))
    rises = []
    for gram, count in after.items():
        old, new = before[gram] / len(early), count / len(late)
        # A phrase must be common now and at least twice as common as it was.
        if count >= 3 and new >= 0.2 and new >= 2 * old and new - old >= 0.15:
            # Longer phrases tell more, so a word adds a little to the rise; one word alone is rarely telling.
            rises.append(((new - old) * (1 + 0.15 * (len(gram) - 1)), gram, old, new))
    chosen: list[tuple[tuple[str, ...], float, float]] = []
    for _, gram, old, new in sorted(rises, key=lambda r: (-r[0], r[1])):
        if not any(set(gram) & set(other) for other, _, _ in chosen):
            chosen.append((gram, old, new))
        if len(chosen) == most:
            break
    return [(" ".join(gram), old, new) for gram, old, new in chosen]


def _commonest(texts: Sequence[str], which: str, size: int = 4) -> tuple[str, Callable[[Sequence[str]], float]]:
    def cut(text: str) -> tuple[str, ...]:
        words = _words(text)
        return tuple(words[-size:] if which == "end" else words[:size])

    pieces = Counter(piece for piece in map(cut, texts) if piece)
    top = pieces.most_common(1)[0][0] if pieces else ()
    return " ".join(top), lambda many: sum(cut(t) == top for t in many) / len(many)


def _repetition(texts: Sequence[str]) -> float:
    """Mean share of an answer's three-word phrases that it has already said."""
    shares = []
    for text in texts:
        words = _words(text)
        grams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
        if grams:
            shares.append(1 - len(set(grams)) / len(grams))
    return float(np.mean(shares)) if shares else 0.0


def exploited(early_texts: Sequence[str], late_texts: Sequence[str]) -> str:
    """One sentence on what changed between the answers of an early and a late policy.

    Looks at phrases said by many more answers, same endings and openings, length in words and
    repetition within an answer; names what moved most, with the shares before and after.
    """
    if not early_texts or not late_texts:
        return "No samples to compare."
    parts: list[str] = []
    for which, verb in (("end", "end with"), ("start", "open with")):
        phrase, share = _commonest(late_texts, which)
        if phrase and share(late_texts) >= 0.25 and share(late_texts) >= 2 * share(early_texts):
            parts.append(f"{share(late_texts):.0%} {verb} “{phrase}” (was {share(early_texts):.0%})")
    said = " ".join(parts)
    for phrase, old, new in _phrases(early_texts, late_texts):
        if phrase not in said:
            parts.append(f"{new:.0%} say “{phrase}” (was {old:.0%})")
    lengths = [float(np.mean([len(_words(t)) for t in texts])) for texts in (early_texts, late_texts)]
    if lengths[1] > 1.25 * lengths[0] or lengths[1] < 0.8 * lengths[0]:
        parts.append(f"answers went from {lengths[0]:.0f} to {lengths[1]:.0f} words")
    loops = _repetition(early_texts), _repetition(late_texts)
    if loops[1] > max(2 * loops[0], loops[0] + 0.1):
        parts.append(f"{loops[1]:.0%} of three-word phrases repeat within the answer (was {loops[0]:.0%})")
    if not parts:
        return "Nothing simple changed: no phrase, ending, length or repetition stands out."
    return "Of the late answers, " + "; ".join(parts[:4]) + "."
