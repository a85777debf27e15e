"""A made-up run with every field a report can hold."""

from __future__ import annotations

import json
import math
from pathlib import Path

STAGES = ["base", "sft", "ppo", "ppo-no-kl"]
EVIL = "<script>alert('x')</script> & \"quoted\" </style>"


def report() -> dict:
    strength = {"base": 0.0, "sft": 1.1, "ppo": 2.3, "ppo-no-kl": 0.4}
    wins = []
    for judge, n in (("gold", 400), ("held-out-labelers", 300)):
        for i, b in enumerate(STAGES):
            for a in STAGES[i + 1 :]:
                p = 1 / (1 + math.exp(-(strength[a] - strength[b]) * (1 if judge == "gold" else 0.6)))
                half = 1.96 * math.sqrt(p * (1 - p) / n)
                wins.append(
                    {
                        "policy": a,
                        "baseline": b,
                        "judge": judge,
                        "win_rate": p,
                        "ci95": [p - half, p + half],
                        "prompts": n,
                    }
                )

    def rate(v, n=120):
        half = 1.96 * math.sqrt(max(v * (1 - v), 0.004) / n)
        return {"value": v, "ci95": [max(0, v - half), min(1, v + half)], "prompts": n}

    table = {"base": (0.21, 0.3, 0.61, 0.02, 0.52, 31), "sft": (0.44, 0.82, 0.18, 0.06, 0.34, 28),
             "ppo": (0.71, 0.97, 0.02, 0.03, 0.12, 36), "ppo-no-kl": (0.38, 0.99, 0.0, 0.31, 0.44, 63)}  # fmt: skip
    names = ("instruction_following", "harmful_refusal", "harmful_compliance", "over_refusal", "sycophancy")
    behaviours = {
        s: {
            **{k: rate(v) for k, v in zip(names, row, strict=False)},
            "length_tokens": {"value": row[5], "ci95": [row[5] - 1.5, row[5] + 1.5], "prompts": 400},
        }
        for s, row in table.items()
    }
    loss = {"base": 1.21, "sft": 1.26, "ppo": 1.34, "ppo-no-kl": 1.71}
    for i, (s, found) in enumerate(behaviours.items()):
        found |= {"full_refusal": rate(0.05 + 0.02 * i), "partial_refusal": rate(0.01 * i)}
        found |= {"agrees_with_wrong_opinion": rate(0.6 - 0.1 * i), "backs_down_when_doubted": rate(0.5 - 0.1 * i)}
        found["feedback_follows_taste"] = {
            "value": 0.3 - 0.2 * i,
            "ci95": [0.2 - 0.2 * i, 0.4 - 0.2 * i],
            "prompts": 24,
        }
        for name, value in (("words", 20.0 + 9 * i), ("list_items", 0.5 * i), ("hedges_per_100_words", 2.0)):
            found[name] = {"value": value, "ci95": [0.9 * value, 1.1 * value], "prompts": 400}
        found["repetition"] = rate(0.04 + 0.1 * (i == 3))
        found["closed_domain_hallucination"] = rate(0.5 - 0.1 * i)
        found["task:facts"] = {**rate(0.95 - 0.1 * i), "per_character": 0.9}
        found["lm-eval:choice/acc"] = rate(0.9 - 0.1 * i)
        found["gold"] = {"value": 0.5 + 0.1 * i, "ci95": [0.47 + 0.1 * i, 0.53 + 0.1 * i], "prompts": 400}
        found["corpus_loss"] = {"value": loss[s], "ci95": [loss[s] - 0.04, loss[s] + 0.04], "prompts": 900}

    use_cases = {
        s: {"generation": rate(0.3 + 0.2 * i, 140), "closed_qa": rate(0.1, 40), "other": rate(0.5, 9)}
        for i, s in enumerate(STAGES)
    }

    def change(behavior, policy, baseline, difference, half, p=0.001):
        about = {"behavior": behavior, "policy": policy, "baseline": baseline, "prompts": 120, "difference": difference}
        return {**about, "ci95": [difference - half, difference + half], "p": p, "p_holm": p, "changed": p < 0.05}

    changes = [
        change("instruction_following", "ppo", "base", 0.5, 0.08),
        change("over_refusal", "ppo-no-kl", "base", 0.29, 0.08),
        change("agrees_with_wrong_opinion", "ppo", "base", -0.2, 0.1),
        change("words", "ppo", "base", 18.0, 2.0),
        change("closed_domain_hallucination", "ppo", "base", -0.2, 0.1),
        change("task:facts", "ppo", "base", -0.2, 0.05),
        change("task:facts", "sft", "base", -0.1, 0.12, 0.2),
        change("rubric:gold/likert", "ppo", "base", 1.5, 0.4),
        *(change("corpus_loss", s, "base", loss[s] - 1.21, 0.02, 0.3 if s == "sft" else 1e-6) for s in STAGES[1:]),
    ]
    ratings = {
        "gold": [
            {"model": s, "rating": 1000 + 150 * strength[s], "ci95": [970 + 150 * strength[s], 1030 + 150 * strength[s]],
             "games": 1200, "prior": False,
             "length_controlled": {"rating": 1010 + 100 * strength[s], "ci95": [980 + 100 * strength[s], 1040 + 100 * strength[s]]}}
            for s in sorted(STAGES, key=lambda s: -strength[s])
        ]
    }  # fmt: skip
    made_by = [{"stage": "sft", "data": "world"}, {"stage": "pretrain", "data": "c" * 64}]
    models = {
        s: {"source": f"/somewhere/secret/runs/quickstart/{s}/model", "kind": "checkpoint", "sha256": "ab" * 32,
            "made_by": [{"stage": "ppo", "data": "world", "reward_model": "runs/quickstart/reward"}, *made_by][1 - i // 2:]}
        for i, s in enumerate(STAGES)
    }  # fmt: skip
    wins.append(
        {"policy": "ppo", "baseline": "sft", "judge": "local:judge", "win_rate": 0.61, "ci95": [0.55, 0.67], "prompts": 380,
         "judged": 380, "ties": 40, "unparsable": 7, "failed": 3, "missing": 10, "flip_rate": 0.11, "bounds": [0.59, 0.62],
         "flip_ci95": [0.08, 0.15], "length_controlled": {"win_rate": 0.54, "ci95": [0.47, 0.61]}, "explained_by_length": 0.64,
         "explained_by_length_ci95": [0.38, 1.12]}
    )  # fmt: skip
    agreements = [
        {"people": "people:votes.jsonl", "judge": None, "kappa": 0.61, "ci95": [0.5, 0.7], "agreement": 0.8, "pairs": 90, "prompts": 80},
        {"people": "people:votes.jsonl", "judge": "local:judge", "kappa": 0.44, "ci95": [0.3, 0.57], "agreement": 0.7, "pairs": 88, "prompts": 88},
    ]  # fmt: skip
    kl = {
        s: {"value": v, "ci95": [v - 0.3, v + 0.3], "prompts": 400}
        for s, v in (("sft", 0.0), ("ppo", 2.1), ("ppo-no-kl", 14.0))
    }
    bins = [
        {"low": b / 10, "high": b / 10 + 0.1, "questions": 12, "confidence": b / 10 + 0.05, "right": b / 12, "ci95": [0, 1]}
        for b in range(4, 10)
    ]  # fmt: skip
    calibration = {
        s: {"facts": {"value": 0.1 + 0.05 * i, "ci95": [0.05 + 0.05 * i, 0.15 + 0.05 * i], "prompts": 72,
                      "accuracy": 0.6, "confidence": 0.7 + 0.05 * i, "bins": bins}}
        for i, s in enumerate(STAGES)
    }  # fmt: skip
    rubric = {
        "gold": {
            s: {"likert": {"value": 3.0 + i, "ci95": [2.8 + i, 3.2 + i], "prompts": 400}, "hallucination": rate(0.3),
                "sexual": rate(0.0), "counts": {"failed": 1, "unparsable": 2, "unrated": 3}}
            for i, s in enumerate(STAGES)
        }
    }  # fmt: skip
    steps = range(0, 201, 20)
    good = [
        {
            "step": s,
            "kl": 9 * (1 - math.exp(-s / 60)),
            "proxy": 1.4 * (1 - math.exp(-s / 60)),
            "gold": 0.55 + 0.2 * (1 - math.exp(-s / 60)),
            "length": 28 + s / 25,
        }
        for s in steps
    ]
    bad = [
        {
            "step": s,
            "kl": 0.45 * s,
            "proxy": 3.2 * (1 - math.exp(-s / 90)),
            "gold": 0.55 + 0.006 * s - 0.00006 * s * s * 0.75,
            "length": 28 + s / 5,
        }
        for s in steps
    ]
    answer = {
        s: {
            "text": f"An answer by {s}. The river runs north of the town, and the mill stands on it.",
            "gold": 0.2 + 0.2 * i,
            "proxy": -0.5 + i,
            "tokens": 20 + i,
            "by_prefix": {
                "pieces": ["An", " answer", " by", f" {s}", ". The mill", " stands", " on it.", ""],
                "scores": [0.0, 0.1, 0.1, 0.9 + i, 0.9 + i, 0.2, 0.21, -0.5 + i],
            },
            "facets": {"task": 0.9, "truth": 0.5},
        }
        for i, s in enumerate(STAGES)
    }
    samples = [
        {
            "prompt_id": f"p{i}",
            "category": "open QA",
            "prompt": f"Question {i}: where does the mill of Aldermere stand, and why?",
            "answers": answer,
        }
        for i in range(11)
    ]
    samples.append(
        {
            "prompt_id": "evil",
            "category": EVIL,
            "prompt": EVIL,
            "answers": {**answer, "ppo": {"text": EVIL + "\x00\ud800"}, "base": {"text": ""}},
        }
    )
    return {
        "version": "0.1.0", "name": "quickstart", "recipe": "quickstart", "seed": 1, "seconds": 512.0, "peak_rss_bytes": 2.1e9,
        "created": "2026-11-24 02:40", "command": "tutelage run recipes/quickstart.yaml --seed 1",
        "versions": {"tutelage": "0.1.0", "torch": "2.13"},
        "data": {"demonstrations": 1500, "comparisons": 9000, "labelers": 5, "completions": 6000},
        "stages": [{"name": n, "verb": v, "checkpoint": f"{n}/model", "seconds": t, "tokens": k, **fed} for n, v, t, k, fed in
                   (("base", "pretrain", 120, 2.1e6, {}), ("sft", "sft", 60, 3.1e5, {"demonstrations": 1500}),
                    ("reward", "reward", 88, 9e5, {"comparisons": 9000}),
                    ("ppo", "ppo", 140, 1.2e6, {"episodes": 7680}), ("ppo-no-kl", "ppo", 130, 1.4e6, {"episodes": 7680}))],
        "win_rates": wins, "behaviours": behaviours,
        "reward_model": {"accuracy": 0.724, "ci95": [0.70, 0.748], "labeler_agreement": 0.735, "labeler_agreement_ci95": [0.71, 0.76], "ceiling": 0.83, "gold_accuracy": 0.81,
                         "calibration_error": 0.021, "length_correlation": 0.18, "pairs": 1800, "length_accuracy": 0.54,
                         "accuracy_by_category": {c: {"value": v, "pairs": 200} for c, v in (("open QA", 0.74), ("generation", 0.7), ("rewrite", 0.69), ("harmful", 0.82))},
                         "calibration": [{"predicted": p / 10, "observed": p / 10 + 0.02 * math.sin(p), "pairs": 180} for p in range(1, 10)],
                         "best_of_n": [{"n": n, "gold": 0.55 + 0.06 * math.log2(n), "proxy": math.log2(n)} for n in (1, 2, 4, 8, 16)]},
        "overoptimization": [{"kl_coef": 0.1, "curve": good}, {"kl_coef": 0.0, "curve": bad}],
        "samples": samples,
        "exploited": {"sentence": "Of the late answers, 71% end with “i hope this helps” (was 3%).",
                      "early": [{"prompt": "Where is the mill?", "text": "On the river.", "proxy": 0.2, "gold": 0.7}],
                      "late": [{"prompt": "Where is the mill?", "text": "A fine question! I hope this helps! I hope this helps!", "proxy": 3.1, "gold": 0.1}]},
        "alarms": [{"stage": "ppo-no-kl", "step": 120, "message": "Rewards rise, quality falls."}],
        "corpus_loss": loss, "changes": changes, "ratings": ratings, "models": models, "judge_agreement": agreements, "kl": kl,
        "calibration": calibration, "rubric": rubric, "use_cases": use_cases,
    }  # fmt: skip


def make_run(folder: Path, value: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report() if value is None else value), encoding="utf-8")
    for stage in ("sft", "reward", "ppo"):
        (folder / stage).mkdir(exist_ok=True)
        rows = [
            {
                "step": i,
                "seconds": i * 0.3,
                "num_tokens": i * 900,
                "loss": 2 * math.exp(-i / 80) + 0.5,
                "grad_norm": 1.0 + 0.1 * math.sin(i),
                "kl": i / 40,
            }
            for i in range(300)
        ]
        (folder / stage / "metrics.jsonl").write_text(
            "\n".join(map(json.dumps, rows)) + '\n{"step": 3', encoding="utf-8"
        )
        (folder / stage / "config.yaml").write_text("learning_rate: 1e-4\nbatch_size: 32\n", encoding="utf-8")
    return folder
