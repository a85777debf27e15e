"""The sections that are words: headline, pipeline, samples, alarms, lineage, limits."""

from __future__ import annotations

from typing import Any

from tutelage.report.measured import JUDGES, find_win
from tutelage.report.parts import badge, facts, look, name, number
from tutelage.report.reward_strip import LEGEND, in_words, largest_change, reading, tinted
from tutelage.report.svg import esc, percent, short

Report = dict[str, Any]


def headline(report: Report) -> tuple[str, str]:
    """(sentence, three numbers as HTML)."""
    cards, phrases = [], []
    policy = _policy(report)
    for a, b in ((policy, "sft"), ("sft", "base"), (policy, "base")):
        win = find_win(report, a, b)
        if win:
            ci = f"{100 * win['ci'][0]:.0f}–{100 * win['ci'][1]:.0f}, " if win["ci"] else ""
            note = f"95 % {ci}{short(number(win['prompts']))} held-out prompts, gold judge"
            cards.append((look(a)[0], percent(win["rate"]), f"{name(a)} wins over {name(b)}", note))
            verb = "beats" if win["rate"] >= 0.5 else "is better than"
            only = "" if win["rate"] >= 0.5 else "only "
            phrases.append(f"{name(a)} {verb} {name(b)} on {only}{percent(win['rate'])}")
    if not cards:
        cards, phrases = _others(report)
    card = report.get("reward_model") or {}
    if number(card.get("accuracy")) is not None:
        agree = number(card.get("labeler_agreement"))
        note = f"two labelers agree on {percent(agree)}" if agree is not None else ""
        cards.append(("s-rm", percent(card["accuracy"]), "reward model right on held-out labels", note))
    if phrases:
        sentence = f"{phrases[0]} of held-out prompts" + (f", and {phrases[1]}" if len(phrases) > 1 else "") + "."
    else:
        sentence = f"{report.get('recipe') or report.get('name') or 'This run'} is finished."
    html = "".join(
        f'<div class="num {c}"><b>{esc(v)}</b><span>{esc(w)}</span><p class="tiny">{esc(t)}</p></div>'
        for c, v, w, t in cards[:3]
    )
    return sentence, f'<div class="nums">{html}</div>' if html else ""


def _policy(report: Report) -> str:
    """PPO, or where the run has none, what wins most over SFT."""
    rows = report.get("win_rates") or []
    found = dict.fromkeys(str(row.get(side)) for row in rows for side in ("policy", "baseline"))
    wins = {one: win["rate"] for one in found if not one.startswith("base") and (win := find_win(report, one, "sft"))}
    return "ppo" if "ppo" in wins or not wins else max(wins, key=lambda one: wins[one])


def _others(report: Report) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    """The clearest win rates of models by any name and judge."""
    known = [r for r in report.get("win_rates") or [] if number(r.get("win_rate")) is not None]
    cards, phrases = [], []
    for row in sorted(known, key=lambda r: -abs(r["win_rate"] - 0.5))[:3]:
        ahead = row["win_rate"] >= 0.5
        a, b = (row["policy"], row["baseline"]) if ahead else (row["baseline"], row["policy"])
        win = find_win(report, a, b, row["judge"]) or {"rate": row["win_rate"], "ci": None, "prompts": None}
        ci = f"95 % {100 * win['ci'][0]:.0f}–{100 * win['ci'][1]:.0f}, " if win["ci"] else ""
        note = f"{ci}{short(number(win['prompts']))} prompts, {JUDGES.get(row['judge'], row['judge'])}"
        cards.append((look(a)[0], percent(win["rate"]), f"{name(a)} wins over {name(b)}", note))
        phrases.append(f"{name(a)} beats {name(b)} on {percent(win['rate'])}")
    return cards, phrases


def pipeline(report: Report) -> str:
    """Each stage with what it was fed, and what it took."""
    items = []
    for entry in report.get("stages") or []:
        stage = str(entry.get("name"))
        count, words = _fed(entry, report)
        cost = " · ".join(t for t in (_time(entry.get("seconds")), _tokens(entry.get("tokens"))) if t)
        # A second PPO starts from the same SFT and reward models, not from the first.
        alt = " alt" if stage.startswith("ppo-") else ""
        top = f"<b>{esc(short(number(count)))}</b>" if number(count) else ""
        items.append(
            f'<li class="{look(stage)[0]}{alt}"><p class="from">{top}{esc(words)}</p>'
            f'<p class="model">{badge(stage)}{esc(name(stage))}</p><p class="tiny">{esc(cost)}</p></li>'
        )
    return f'<ol class="pipe">{"".join(items)}</ol>' if items else ""


def _fed(entry: dict[str, Any], report: Report) -> tuple[Any, str]:
    """(how many, of what) a stage of report.json was fed."""
    verb = entry.get("verb")
    if entry.get("episodes"):
        return entry["episodes"], "answers of the model, scored by the reward model"
    if verb == "sft":
        return entry.get(
            "demonstrations"
        ), "demon\u00adstrations of good answers"  # a soft hyphen: the boxes are narrow
    if verb == "sample":
        return entry.get("completions"), "answers, several to each prompt"
    if verb == "label":
        return entry.get("labelers"), "labelers, who rank the answers to each prompt"
    if verb == "eval":
        return (report.get("win_rates") or [{}])[0].get("prompts"), "held-out prompts, answered by every model"
    if entry.get("comparisons"):
        labelers = number((report.get("data") or {}).get("labelers"))
        return entry["comparisons"], "compari\u00adsons" + (f" by {short(labelers)} labelers" if labelers else "")
    return entry.get("tokens"), "tokens"


def _time(value: Any) -> str:
    seconds = number(value)
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _tokens(value: Any) -> str:
    return f"{short(number(value))} tokens" if number(value) else ""


def exploited(report: Report) -> str:
    found = report.get("exploited") or {}
    if not found:
        return ""
    columns = []
    for key, heading in (("early", "Early"), ("late", "Late, exploiting")):
        rows = "".join(_scored(row) for row in (found.get(key) or [])[:3])
        if rows:
            columns.append(f"<div><h4>{heading}</h4>{rows}</div>")
    return (
        f'<h3>What was exploited</h3><p>{esc(found.get("sentence", ""))}</p><div class="cols">{"".join(columns)}</div>'
    )


def _scored(row: dict[str, Any] | str) -> str:
    row = {"text": row} if isinstance(row, str) else row
    scores = facts([("proxy", short(number(row.get("proxy")))), ("gold", short(number(row.get("gold"))))])
    return (
        f'<div class="answer"><p class="tiny">{esc(str(row.get("prompt", ""))[:600])}</p>'
        f'<p class="text">{_text(row.get("text"))}</p>{scores}</div>'
    )


def _text(value: Any) -> str:
    text = str(value or "")
    if not text.strip():
        return '<span class="empty">(empty)</span>'
    return esc(text[:4000]) + (" …" if len(text) > 4000 else "")


def samples(report: Report, most: int) -> str:
    rows = [s for s in report.get("samples") or [] if s.get("answers")][:most]
    if not rows:
        return ""
    golds = [g for s in rows for a in s["answers"].values() if (g := number(a.get("gold"))) is not None]
    low, high = (min([0.0, *golds]), max([1.0, *golds])) if golds else (0.0, 1.0)
    options, made = [], []
    for i, sample in enumerate(rows, start=1):
        title = " ".join(str(sample.get("prompt", "")).split())
        options.append(f"<option>{i}. {esc(title[:70])}{'…' if len(title) > 70 else ''}</option>")
        largest = largest_change([*sample["answers"].values()])
        answers = "".join(_answer(stage, a, low, high, largest) for stage, a in sample["answers"].items())
        category = f'<p class="tiny">{esc(sample["category"])}</p>' if sample.get("category") else ""
        made.append(
            f'<div class="one">{category}<div class="prompt">{_text(sample.get("prompt"))}</div><div class="cols">{answers}</div></div>'
        )
    pick = (
        '<div class="pick"><button type="button" value="-1">Previous</button><select aria-label="Prompt">'
        f'{"".join(options)}</select><button type="button" value="1">Next</button></div>'
    )
    legend = LEGEND if any(reading(a) for s in rows for a in s["answers"].values()) else ""
    return f'{legend}<div class="picker">{pick}{"".join(made)}</div>'


def _answer(stage: str, answer: dict[str, Any], low: float, high: float, largest: float) -> str:
    """One answer; largest: the largest step of the reward in those beside it (`reward_strip`)."""
    gold = number(answer.get("gold"))
    bar = ""
    if gold is not None:
        width = 100 * (gold - low) / (high - low)
        bar = (
            f'<svg class="strip" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="bg" width="100" height="6"/>'
            f'<rect class="fg" width="{width:.1f}" height="6"/></svg>'
        )
    pairs = [("gold", gold), ("proxy", number(answer.get("proxy"))), ("tokens", number(answer.get("tokens")))]
    pairs += [(str(k), number(v)) for k, v in (answer.get("facets") or {}).items()]
    lines = "".join(f"<dt>{esc(k)}</dt><dd>{short(v)}</dd>" for k, v in pairs if v is not None)
    tint = tinted(answer, largest)
    text = f'<p class="text rw">{tint}</p>' if tint else f'<p class="text">{_text(answer.get("text"))}</p>'
    return (
        f'<div class="answer {look(stage)[0]}"><p class="who">{badge(stage)}{esc(name(stage))}</p>'
        f'{text}{in_words(answer)}{bar}<dl class="facets">{lines}</dl></div>'
    )


def alarms(report: Report) -> str:
    if "alarms" not in report:
        return ""
    rows = report["alarms"] or []
    if not rows:
        return "<p>No alarm was raised.</p>"
    return "".join(
        f'<p class="callout"><b>{esc(name(str(a.get("stage", ""))))}, step {esc(a.get("step", "?"))}.</b> '
        f"{esc(a.get('message', ''))}</p>"
        for a in rows
    )


def lineage(report: Report, folders: dict[str, dict[str, Any]]) -> str:
    rss = number(report.get("peak_rss_bytes"))
    made = [
        facts(
            [
                ("recipe", report.get("recipe")),
                ("seed", report.get("seed")),
                ("made", report.get("created")),
                ("took", _time(report.get("seconds"))),
                ("peak memory", f"{rss / 2**30:.2f} GiB" if rss else None),
                ("versions", ", ".join(f"{k} {v}" for k, v in (report.get("versions") or {}).items())),
                *((f"{name(str(s.get('name')))} checkpoint", s.get("checkpoint")) for s in report.get("stages") or []),
            ]
        )
    ]
    if report.get("command"):
        made.append(f"<pre>{esc(report['command'])}</pre>")
    for stage, files in folders.items():
        for file, text in files.items():
            made.append(f"<details><summary>{esc(stage)}: {esc(file)}</summary><pre>{esc(text)}</pre></details>")
    return "".join(made)


def limits(report: Report) -> str:
    judges = {row.get("judge") for row in report.get("win_rates") or []}
    built = not judges or "gold" in judges
    lines = [
        "One run with one seed: the intervals are over prompts, not over seeds. Another seed moves every number.",
    ]
    if built:
        lines += [
            "The gold judge is a program. It rewards what it was written to see; a person may weigh the same answers otherwise.",
            "Simulated labelers err in the ways they were given. People err in others, and disagree for reasons.",
        ]
    if any(str(judge).startswith(("openai:", "anthropic:", "local:")) for judge in judges):
        lines.append("A language model that judges has tastes of its own, for length and for its own kind of answers.")
    if any(str(judge).startswith(("reward", "people:")) for judge in judges):
        lines.append("A reward model, or a few people, stand for those they learned from, and for nobody else.")
    if report.get("overoptimization"):
        lines.append(
            "Gold is known here because the world is built. On real data nobody sees that curve; watch held-out people instead."
        )
    lines.append("Refusals, hedges and sycophancy are read by rules over words: they miss what is said in other words.")
    lines.append(
        "Held-out prompts come from the same distribution as the training prompts; other requests may go otherwise."
    )
    return '<ul class="plain">' + "".join(f"<li>{esc(line)}</li>" for line in lines) + "</ul>"
