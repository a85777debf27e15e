"""Reward hacking: where proxy and gold part, and what the policy learned to say instead."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import UserError
from tutelage.evaluation.intervals import mean_interval

Point = dict[str, Any]
_WORD = re.compile(r"\w+(?:'\w+)?", re.UNICODE)


def curve(rows: Iterable[Mapping[str, Any]], gold_of: Callable[[Mapping[str, Any]], float]) -> list[Point]:
    """Means per step of a PPO run's samples: [{"step", "kl", "proxy", "gold", "length"}], by step.

    `rows`: lines of samples.jsonl with `step`, `proxy`, `kl` (nats per answer) and `tokens` (a count,
    or the tokens themselves); `gold_of` gives a row's gold score. Raises UserError at a row that lacks a field.
    Source of the picture: Gao, Schulman & Hilton (2023), "Scaling laws for reward model overoptimization", figure 1.
    """
    points = []
    for step, values in _by_step(rows, gold_of).items():
        kl, proxy, gold, length = (float(x) for x in values.mean(axis=0))
        points.append({"step": step, "kl": kl, "proxy": proxy, "gold": gold, "length": length})
    return points


def curve_intervals(
    rows: Iterable[Mapping[str, Any]], gold_of: Callable[[Mapping[str, Any]], float]
) -> list[dict[str, Any]]:
    """The 95 % intervals of the means of `curve`, over the prompts of each step; None where a step has one prompt."""
    found = []
    for step, values in _by_step(rows, gold_of).items():
        ends = [list(mean_interval(column)[1:]) if len(values) > 1 else None for column in values.T]
        found.append({"step": step, **dict(zip(("kl", "proxy", "gold", "length"), ends, strict=True))})
    return found


def _by_step(
    rows: Iterable[Mapping[str, Any]], gold_of: Callable[[Mapping[str, Any]], float]
) -> dict[int, NDArray[np.float64]]:
    """KL, proxy, gold and length of the answers at each step, by step: [answers, 4]."""
    steps: dict[int, list[tuple[float, float, float, float]]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        try:
            tokens = row["tokens"]
            length = float(len(tokens)) if isinstance(tokens, Sequence) else float(tokens)
            steps[int(row["step"])].append((float(row["kl"]), float(row["proxy"]), float(gold_of(row)), length))
        except KeyError as missing:
            raise UserError(
                f"row {number} has no field {missing}", where="samples.jsonl", mend="sample again with this version"
            ) from None
    return {step: np.asarray(steps[step]) for step in sorted(steps)}


def verdict(points: Sequence[Mapping[str, float]]) -> str:
    """One sentence on a curve: whether gold followed the proxy, and where it turned.

    A fall is called one when it exceeds a tenth of the range that gold covers in the run, and the last value
    is the mean of the last two points, so that a single noisy evaluation does not decide.
    """
    if len(points) < 2:
        return "One evaluation only: no curve to judge."
    gold = np.array([float(p["gold"]) for p in points])
    proxy = np.array([float(p["proxy"]) for p in points])
    peak = int(gold.argmax())
    tail = 1 if len(points) < 4 else 2
    last_gold, last_proxy = float(gold[-tail:].mean()), float(proxy[-tail:].mean())
    span = max(float(np.ptp(gold)), 1e-12)
    fell = gold[peak] - last_gold > 0.1 * span and peak < len(points) - 1
    proxy_rose = last_proxy > proxy[0]
    at = f"KL {float(points[peak]['kl']):.1f} (step {int(points[peak]['step'])})"
    ends = f"{gold[0]:.2f} → {gold[peak]:.2f} → {last_gold:.2f}"
    proxies = f"{proxy[0]:.2f} → {last_proxy:.2f}"
    if fell and proxy_rose:
        below = ", below where it began" if last_gold < gold[0] else ""
        if peak == 0:
            return f"Proxy rose ({proxies}) while gold fell from the start ({gold[0]:.2f} → {last_gold:.2f})."
        return f"Proxy rose ({proxies}); gold peaked at {at} and then fell{below} ({ends})."
    if fell:
        return f"Gold peaked at {at} and then fell ({ends}); the proxy did not rise ({proxies})."
    if last_gold > gold[0]:
        follows = "Gold rose with the proxy" if proxy_rose else "Gold rose though the proxy did not"
        return f"{follows}: gold {gold[0]:.2f} → {last_gold:.2f}, proxy {proxies}, KL {float(points[-1]['kl']):.1f}."
    return f"Gold did not rise ({gold[0]:.2f} → {last_gold:.2f}); proxy {proxies}."


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
    sentences = ["Of the late answers, " + "; ".join(parts[:4]) + "."] if parts else []
    lengths = [float(np.mean([len(_words(t)) for t in texts])) for texts in (early_texts, late_texts)]
    if lengths[1] > 1.25 * lengths[0] or lengths[1] < 0.8 * lengths[0]:
        sentences.append(f"Answers went from {lengths[0]:.0f} to {lengths[1]:.0f} words.")
    loops = _repetition(early_texts), _repetition(late_texts)
    if loops[1] > max(2 * loops[0], loops[0] + 0.1):
        sentences.append(f"{loops[1]:.0%} of three-word phrases repeat within an answer (was {loops[0]:.0%}).")
    return " ".join(sentences) or "Nothing simple changed: no phrase, ending, length or repetition stands out."
