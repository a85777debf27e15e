"""The verbs that run one stage: pretrain, sft, sample, label, reward, ppo, the dpo family, rloo …, eval."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.cli.options import as_yaml, parse, show
from tutelage.configs import STAGES, TrainingConfig, to_mapping
from tutelage.named_data import local_data
from tutelage.processes import is_main
from tutelage.runs import check_out
from tutelage.verbs import stage_function


def main(verb: str, arguments: list[str]) -> dict[str, Any] | None:
    config, dry_run = parse(STAGES[verb], verb, arguments)
    if (data := local_data(config.data)) != config.data:
        config = replace(config, data=data)
    if dry_run:
        print(as_yaml(config), end="")
        return None
    if isinstance(config, TrainingConfig) and is_main():
        check_out(config.out or f"runs/{verb}", stage=verb, config=to_mapping(config), resume=config.resume)
    result = stage_function(verb)(config)
    for key in ("checkpoint", "out", "agreement", "reward_model"):
        if result.get(key) is not None:
            show(f"{verb}: {key}: {result[key]}")
    for line in _evaluation(result) if verb == "eval" else []:
        show(f"eval: {line}")
    if verb == "eval" and (config.out or result.get("cost") is not None):
        show(f"eval: the report is {Path(config.out or 'runs/eval') / 'report.html'}")
    for line in _tables(result):
        show(f"{verb}: {line}")
    return result


def _evaluation(result: dict[str, Any]) -> list[str]:
    """Who wins by whom, what changed, ratings, and how far judges agree with people."""
    lines = [f"{row['policy']} over {row['baseline']} by {row['judge']}: {_rate(row)}" for row in result["win_rates"]]
    lines += _scores(result)
    for row in result.get("changes", []):
        if row["changed"]:
            low, high = row["ci95"]
            said = f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}], p {row['p_holm']:.2g} after Holm"
            lines.append(f"{row['behavior']}, {row['policy']} against {row['baseline']}: {said}")
    for judge, table in result.get("ratings", {}).items():
        shown = ", ".join(f"{r['model']} {_with_interval(r)}" for r in table)
        lines.append(f"ratings by {judge}: {shown}")
        if even := [(r["model"], r["length_controlled"]) for r in table if r["length_controlled"]]:
            even.sort(key=lambda pair: -pair[1]["rating"])
            shown = ", ".join(f"{name} {_with_interval(r)}" for name, r in even)
            lines.append(f"ratings by {judge} at equal lengths: {shown}")
    for row in result.get("judge_agreement", []):
        who = f"{row['judge']} and {row['people']}" if row["judge"] else f"{row['people']} among themselves"
        kappa = "no kappa" if row["kappa"] is None else f"kappa {row['kappa']:.3f}"
        ends = f" [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]" if row["ci95"] else ""
        lines.append(f"{who}: {kappa}{ends}, the same on {row['agreement']:.0%} of {row['pairs']} pairs")
    return lines


def _scores(result: dict[str, Any]) -> list[str]:
    """Capability tasks, calibration and quality of every model, each in a line."""
    rows: dict[str, list[str]] = {}
    for name, found in result.get("behaviours", {}).items():
        for key, entry in found.items():
            if key.startswith(("task:", "lm-eval:", "calibration_error:")):
                rows.setdefault(key.replace("_", " "), []).append(f"{name} {_value(entry)}")
    for rater, models in result.get("rubric", {}).items():
        for name, found in models.items():
            if "likert" in found:
                rows.setdefault(f"quality (1 to 7) by {rater}", []).append(f"{name} {_value(found['likert'])}")
    return [f"{key}: {', '.join(said)}" for key, said in rows.items()]


def _value(entry: dict[str, Any]) -> str:
    ends = f" [{entry['ci95'][0]:.3f}, {entry['ci95'][1]:.3f}]" if entry["ci95"] else ""
    return f"{entry['value']:.3f}{ends}"


def _with_interval(row: dict[str, Any]) -> str:
    return f"{row['rating']:.0f} [{row['ci95'][0]:.0f}, {row['ci95'][1]:.0f}]"


def _tables(result: dict[str, Any]) -> list[str]:
    """What a constitution's principles did, what was left out, what became of the chosen answers, scores, and what the
    best of n solutions solve."""
    lines = []
    if result.get("left_out"):
        lines.append(f"left out: {result['left_out']}")
    for row in result.get("principles", []):
        said = ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        lines.append(said)
    agreement = result.get("agreement_with_people")
    if agreement and agreement["agreement"] is not None:
        ends = f" [{agreement['ci95'][0]:.3f}, {agreement['ci95'][1]:.3f}]" if agreement.get("ci95") else ""
        lines.append(f"agrees with people on {agreement['agreement']:.3f}{ends} of {agreement['pairs']} pairs")
    if told := result.get("chosen_answers"):
        lines += [told[key] for key in ("why", "here", "mend") if told[key]]
    if result.get("stage") == "score":
        lines += _scored(result)
    for name in ("right_answer", "right_answer_and_steps"):
        if name in result:
            low, high = result[name]["ci95"]
            lines.append(f"{name.replace('_', ' ')}: {result[name]['value']:.3f} [{low:.3f}, {high:.3f}]")
    if result.get("stage") == "rerank":
        for key, said in (("best_of_n", ""), ("best_of_n_by_right_steps", ", by right steps")):
            for row in result.get(key, []):
                ways = ", ".join(f"{name} {row[name]['value']:.3f}" for name in row if name != "n")
                lines.append(f"best of {row['n']}{said}: {ways}")
    return lines


def _scored(result: dict[str, Any]) -> list[str]:
    """The first answers with their scores, each step behind its own; the file has them all."""
    lines = []
    for row in result["first"]:
        lines.append(f"{row['id']}: {row['score']:.4g}")
        if "step_scores" in row:
            pairs = zip(row["step_scores"], row["steps"], strict=True)
            lines += [f"  {score:.3f}  {' '.join(step.split())}" for score, step in pairs]
    return [*lines, f"mean of {result['answers']} answers: {result['mean_score']:.4g}"]


def _rate(row: dict[str, Any]) -> str:
    """A win rate with its interval and all that the reader must know to believe it."""
    if row["win_rate"] is None:
        said = "no verdict"
    else:
        said = _with_ends(row["win_rate"], row["ci95"], ".3f")
    notes = [f"{row[name]} {name}" for name in ("missing", "unvoted", "failed", "unparsable") if row.get(name)]
    if row.get("flip_rate"):
        notes.append(f"{_with_ends(row['flip_rate'], row.get('flip_ci95'), '.0%')} flipped with the order")
    if even := row.get("length_controlled"):
        notes.append(f"{_with_ends(even['win_rate'], even.get('ci95'), '.3f')} at equal lengths")
    if ends := row.get("explained_by_length_ci95"):
        notes.append(f"length explains {_with_ends(row['explained_by_length'], ends, '.0%')} of the difference")
    elif even:
        notes.append("the difference is too small to say what length explains of it")
    if row.get("detectable"):
        notes.append(f"{row['prompts']} prompts can show a difference of {row['detectable']:.3f}")
    return "; ".join([said, *notes])


def _with_ends(value: float, ci95: list[float] | None, form: str) -> str:
    return f"{value:{form}} [{ci95[0]:{form}}, {ci95[1]:{form}}]" if ci95 else f"{value:{form}}"
