"""Run a recipe's stages in order, and put what they measured into report.json and report.html."""

import datetime
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage import __version__
from tutelage.algorithms.best_of_n import kl_upper_bound
from tutelage.cluster.placement import is_placed
from tutelage.configs import GroupConfig, PPOConfig, StageConfig, TrainingConfig, to_mapping
from tutelage.configs.cluster import ClusterConfig
from tutelage.engine.distributed import from_main
from tutelage.engine.memory import PeakMemory, peak_rss_bytes
from tutelage.errors import UserError
from tutelage.evaluation.hacking import RunCurve, run_curve, summarize
from tutelage.evaluation.overoptimization import curve, exploited
from tutelage.processes import is_main
from tutelage.recipe import Recipe, skips
from tutelage.report import write_report
from tutelage.runs import check_same, finished, write_config, write_json, write_text
from tutelage.runs.folder import HARMLESS
from tutelage.runs.lineage import environment
from tutelage.stages.evaluated import CARRIED
from tutelage.verbs import is_divided, stage_function

# What stages count of what they were fed, for the picture of the pipeline.
FED = ("demonstrations", "completions", "comparisons", "labelers", "episodes")
# What the report takes over of single methods.
CONSTITUTIONAL = (
    *(
        "prompts",
        "revisions",
        "helpful_answers",
        "ai_comparisons",
        "human_comparisons",
        "equal_answers",
        "single_answers",
    ),
    *("hard_labels", "left_out", "principles", "rounds", "agreement_with_people"),
)
STEP_LABELS = ("solutions", "left_out", "steps", "right_steps", "right_answers", "labels_right", "first_errors_right")
RERANKED = (
    *("prompts", "solutions", "right_answer", "right_answer_and_steps", "best_of_n", "best_of_n_by_right_steps"),
    *("first_errors", "auc"),
)


def run_recipe(recipe: Recipe, command: str) -> dict[str, Any]:
    """Run what is not finished; returns the report. What a stage made stays: its options may not change later.

    Of several processes all take part in training and sampling; the main one does the other stages, and writes.
    """
    started = time.perf_counter()
    left_out = skips(recipe)
    for stage, verb, config in recipe.stages:
        if (recipe.out / stage / "config.yaml").exists():
            check_same(recipe.out / stage, verb, to_mapping(config), HARMLESS - {"max_steps"})
    from_main(lambda: _begin(recipe))
    results: dict[str, dict[str, Any]] = {}
    for stage, verb, config in recipe.stages:
        if stage in left_out:
            print(f"{stage}: left out, {recipe.data} holds comparisons already", file=sys.stderr)
            continue
        done = from_main(lambda: finished(recipe.out / stage))
        if done is None and is_divided(config):
            done = run_stage(recipe.out, stage, verb, config, recipe.cluster)
        results[stage] = done or from_main(lambda: run_stage(recipe.out, stage, verb, config, recipe.cluster))
    return from_main(lambda: _write_reports(recipe, results, command, started))


def _begin(recipe: Recipe) -> None:
    recipe.out.mkdir(parents=True, exist_ok=True)
    write_text(recipe.out / "recipe.yaml", Path(recipe.path).read_text(encoding="utf-8"))


def _write_reports(recipe: Recipe, results: dict[str, dict[str, Any]], command: str, started: float) -> dict[str, Any]:
    """report.json and report.html; returns the first."""
    report = _report(recipe, results, command)
    report["seconds"] = round(sum(r["seconds"] for r in results.values()), 1)
    report["wall_seconds"] = round(time.perf_counter() - started, 1)
    write_json(recipe.out / "report.json", report)
    write_report(recipe.out)
    return report


def run_stage(
    out: Path, stage: str, verb: str, config: StageConfig, cluster: ClusterConfig | None = None
) -> dict[str, Any]:
    """One stage into its folder; summary.json, written last, says that it is complete."""
    folder = out / stage
    before = time.perf_counter()
    try:
        if not isinstance(config, TrainingConfig) and is_main():  # they write one file each, whole, and begin anew
            folder.mkdir(exist_ok=True)
            write_config(folder, verb, to_mapping(config))
        with PeakMemory() as peak:
            done = placed_function(verb, config, cluster)(config)
    except UserError:
        if is_main():
            _leave_nothing(out, folder)
        raise
    done = {"seconds": round(time.perf_counter() - before, 2), **done, "peak_rss_bytes": peak.bytes}
    done |= {"peak_gpu_bytes": peak.gpu_bytes} if peak.gpu_bytes else {}
    if is_main():
        write_json(folder / "summary.json", done)
    return done


def placed_function(verb: str, config: StageConfig, cluster: ClusterConfig | None) -> Callable[[Any], dict[str, Any]]:
    """The function that runs a recipe's stage: on the cluster, if there is one and the stage belongs there."""
    if cluster is None or not is_placed(config):
        return stage_function(verb)
    from tutelage.cluster.trainer import run_placed

    return lambda config: run_placed(verb, config, cluster)


def _leave_nothing(out: Path, folder: Path) -> None:
    """Of a stage that a user's mistake kept from beginning, and of a recipe whose first stage it was."""
    if {path.name for path in folder.glob("*")} == {"config.yaml"}:
        (folder / "config.yaml").unlink()
        folder.rmdir()
    if {path.name for path in out.glob("*")} == {"recipe.yaml"}:
        (out / "recipe.yaml").unlink()
        out.rmdir()


def _report(recipe: Recipe, results: dict[str, dict[str, Any]], command: str) -> dict[str, Any]:
    """report.json out of what the stages returned."""
    verbs = {stage: verb for stage, verb, _ in recipe.stages}
    world = recipe.data == "world"
    report: dict[str, Any] = {
        "version": __version__,
        "recipe": recipe.path,
        "name": recipe.name,
        "seed": recipe.seed,
        "seconds": 0.0,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": environment(),
        "peak_rss_bytes": peak_rss_bytes(),
        "model": recipe.model,
        "stages": [
            {
                "name": s,
                "verb": verbs[s],
                "checkpoint": r.get("checkpoint") or r.get("out"),
                "seconds": r["seconds"],
                "tokens": r.get("tokens", 0),
                **{count: r[count] for count in FED if count in r},
            }
            for s, r in results.items()
        ],
        "win_rates": [],
        "overoptimization": [],
        "behaviours": {},
        "changes": [],
        "corpus_loss": {},
        "reward_models": {},
        "samples": [],
        "alarms": [{"stage": s, **alarm} for s, r in results.items() for alarm in r.get("alarms", [])],
    }
    report["data"] = {
        "demonstrations": sum(r.get("demonstrations", 0) for r in results.values()),
        "completions": sum(r.get("completions", 0) for r in results.values()),
        "comparisons": sum(r.get("comparisons", 0) for s, r in results.items() if verbs[s] == "reward"),
        "labelers": sum(r.get("labelers", 0) for r in results.values()),
    }
    for stage, result in results.items():
        if verbs[stage] == "eval":
            report |= {key: result[key] for key in CARRIED if key in result}
        elif verbs[stage] == "reward":
            report["reward_models"][stage] = _reward_card(recipe, results, stage, result)
    report |= _by_method(verbs, results)
    if report["reward_models"]:  # the first is the one that the pages speak of
        report["reward_model"] = next(iter(report["reward_models"].values()))
    if world:
        _add_overoptimization(report, recipe, results)
    return report


def _by_method(verbs: dict[str, str], results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What single methods report: principles and agreement, cards of step models, reranking, best of n."""

    def of(*some: str) -> dict[str, dict[str, Any]]:
        return {stage: result for stage, result in results.items() if verbs[stage] in some}

    constitutional = {s: {key: r[key] for key in CONSTITUTIONAL if key in r} for s, r in of("cai", "cai-label").items()}
    process = {
        "cards": {s: r["card"] for s, r in of("prm", "score").items() if "card" in r},
        "labels": {s: {key: r[key] for key in STEP_LABELS if key in r} for s, r in of("step-label").items()},
        "rerank": {s: {key: r[key] for key in RERANKED if key in r} for s, r in of("rerank").items()},
    }
    best_of_n = {s: r["best_of_n"] for s, r in of("rejection").items() if "best_of_n" in r}
    found = {"constitutional": constitutional, "process": process, "best_of_n": best_of_n}
    return {key: value for key, value in found.items() if any(value.values())}


def _reward_card(
    recipe: Recipe, results: dict[str, dict[str, Any]], stage: str, result: dict[str, Any]
) -> dict[str, Any]:
    """The reward stage's card, with its labelers' agreement and, in the world, the truth."""
    from tutelage.stages.evaluate import reward_model_against_gold

    card = {"labeler_agreement": None, "ceiling": None, "gold_accuracy": None, **result["reward_model"]}
    config = next(config for name, _, config in recipe.stages if name == stage)
    labels = config.data
    for label in results.values():
        if label.get("stage") == "label" and label["out"] == labels:
            card |= {"labeler_agreement": label["agreement"], "labeler_agreement_ci95": label.get("agreement_ci95")}
            card |= {"ceiling": label["ceiling"], "ceiling_ci95": label.get("ceiling_ci95")}
    sft = next((r["checkpoint"] for r in results.values() if r.get("stage") == "sft"), None)
    if recipe.data == "world" and sft:
        card |= reward_model_against_gold(result["checkpoint"], sft, "auto", device=config.device)
    return card


def _add_overoptimization(report: dict[str, Any], recipe: Recipe, results: dict[str, dict[str, Any]]) -> None:
    """Proxy and gold against KL for every on-policy run, judged after the fact from its held-out samples.

    Fits and the verdict over coefficients are PPO's: another method's coefficient means another thing.
    """
    from tutelage.world import gold
    from tutelage.world import prompts as world_prompts

    runs: list[RunCurve] = []
    for stage, verb, config in recipe.stages:
        if not isinstance(config, PPOConfig | GroupConfig) or stage not in results or config.data != "world":
            continue
        kl_coef = config.kl_coef if isinstance(config, PPOConfig) else config.penalty
        asked = {p.id: p for p in world_prompts("tune", config.eval_prompts, config.seed)}
        rows = [json.loads(line) for line in (recipe.out / stage / "samples.jsonl").read_text().splitlines()]
        for row in rows:
            row["gold"] = gold.score(asked[row["prompt_id"]], row["text"], row["finish"]).total
        points = curve(rows, lambda r: r["gold"])
        if verb == "ppo":
            runs.append(run_curve(kl_coef, config.seed, rows, points))
        report["overoptimization"].append({"stage": stage, "kl_coef": kl_coef, "curve": points})
        if kl_coef == 0:
            first, last = (step([r["step"] for r in rows]) for step in (min, max))
            early, late = ([r for r in rows if r["step"] == s] for s in (first, last))
            late_worst = sorted(late, key=lambda r: r["gold"] - r["proxy"])[:6]
            before = {r["prompt_id"]: r for r in early}

            def show(row: dict[str, Any]) -> dict[str, Any]:
                return {
                    "prompt": asked[row["prompt_id"]].messages[-1]["content"],
                    "text": row["text"],
                    "proxy": row["proxy"],
                    "gold": row["gold"],
                }

            report["exploited"] = {
                "sentence": exploited([r["text"] for r in early], [r["text"] for r in late]),
                "early": [show(before[r["prompt_id"]]) for r in late_worst],
                "late": [show(r) for r in late_worst],
            }
    if runs:
        table = report.get("reward_model", {}).get("best_of_n", [])
        report["hacking"] = summarize(runs, [{**row, "kl": kl_upper_bound(row["n"])} for row in table])
