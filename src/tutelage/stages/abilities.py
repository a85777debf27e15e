"""What `tutelage eval` measures of a model beside who wins: capability tasks, truth, calibration, ratings one by one."""

import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.configs import EvalConfig
from tutelage.evaluation.behaviors import by_use_case, rate
from tutelage.evaluation.rubric import rubric_rates
from tutelage.evaluation.sycophancy import Answer, Item
from tutelage.evaluation.truth import confidence_in_words, truthfulness
from tutelage.models import Policy
from tutelage.records import FLAGS, Prompt, Rating
from tutelage.stages.capability import Tasks, is_harness, measure_tasks, own_tasks
from tutelage.stages.harness import check_harness, far, run_harness


@dataclass
class Abilities:
    """rates and outcomes: model → name → entry, as of the other behaviors. calibration: model → task → table.

    rubric: rater → model → measure → entry, with the counts of what could not be rated. use_cases: model → category →
    how often instructions are followed there.
    """

    config: EvalConfig
    tasks: Tasks
    harness: list[str]
    rates: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Mapping[Hashable, float]]] = field(default_factory=dict)
    calibration: dict[str, dict[str, Any]] = field(default_factory=dict)
    rubric: dict[str, dict[str, Any]] = field(default_factory=dict)
    use_cases: dict[str, dict[str, Any]] = field(default_factory=dict)

    def measure(self, name: str, spec: str, policy: Policy | None) -> None:
        """Capability tasks of a model; without its weights only those that lm-eval can ask it, and the rest is said."""
        if policy is not None:
            found = measure_tasks(policy, self.tasks, self.config)
            self._add(name, found.rates, found.outcomes)
            if found.calibration:
                self.calibration.setdefault(name, {}).update(found.calibration)
        elif self.tasks:
            print(
                f"eval: {name} has no log-probabilities here: tasks {', '.join(self.tasks)} left out", file=sys.stderr
            )
        if self.harness and Path(spec).is_file():
            print(f"eval: {name} is a file of outputs: lm-eval left out", file=sys.stderr)
        elif self.harness:
            folder = Path(self.config.out).expanduser() / "lm-eval" / name if self.config.out else None
            scores = run_harness(
                spec, self.harness, folder, self.config.dtype, self.config.device, in_chat=bool(far(self.config.models))
            )
            self._add(name, scores.rates, scores.outcomes)

    def say_how_sure(self, name: str, answer: Answer, items: Sequence[Item]) -> None:
        """Calibration of the confidence that a model puts in words."""
        table, brier, counts = confidence_in_words(answer, items)
        if table is None:
            return
        self.calibration.setdefault(name, {})["stated"] = {**table, **counts}
        entry = {key: table[key] for key in ("value", "ci95", "prompts")}
        self._add(name, {"calibration_error:stated": entry}, {"brier:stated": brier})

    def add(self, name: str, behavior: str, held: Mapping[Hashable, float]) -> None:
        """A behavior that each answer has (1) or not (0), by prompt."""
        self._add(name, {behavior: rate([*held.values()])}, {behavior: held})

    def check_instructions(self, name: str, asked: Sequence[Prompt], findings: Sequence[Mapping[str, Any]]) -> None:
        """How often instructions are followed in each use case; `findings` are the judge's of each prompt's answer."""
        pairs = zip(asked, findings, strict=True)
        self.use_cases[name] = by_use_case({p.id: (p.category, f["instruction_followed"]) for p, f in pairs})

    def check_truth(
        self, name: str, closed: Sequence[tuple[Prompt, str]], common: Sequence[tuple[Prompt, str]]
    ) -> None:
        """Made-up statements and false facts, in the world."""
        self._add(name, *truthfulness(closed, common))

    def rate(
        self,
        rater: str,
        name: str,
        ratings: Mapping[str, Sequence[Rating]],
        known: Sequence[str] = tuple(FLAGS),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Likert and marks of a model's answers (by prompt) by one rater."""
        rates, outcomes = rubric_rates(ratings, known)
        self.rubric.setdefault(rater, {})[name] = {**rates, **({"counts": dict(counts)} if counts else {})}
        self._add(name, {}, {f"rubric:{rater}/{key}": found for key, found in outcomes.items()})

    def all_outcomes(self, name: str, others: Mapping[str, Mapping[Hashable, float]]) -> dict[str, Any]:
        return {**others, **self.outcomes.get(name, {})}

    def into(self, result: dict[str, Any]) -> None:
        """Put everything into an evaluation's result."""
        for name, rates in self.rates.items():
            result["behaviours"][name] |= rates
        for key in ("calibration", "rubric", "use_cases"):
            if found := getattr(self, key):
                result[key] = found

    def _add(self, name: str, rates: Mapping[str, Any], outcomes: Mapping[str, Mapping[Any, float]]) -> None:
        self.rates.setdefault(name, {}).update(rates)
        self.outcomes.setdefault(name, {}).update(outcomes)


def abilities(config: EvalConfig) -> Abilities:
    """What is to be measured; a UserError at once for a task that there is not, or lm-eval where it is not installed."""
    harness = [spec for spec in config.tasks if is_harness(spec)]
    check_harness(harness, config.models)
    return Abilities(config, own_tasks(config), harness)
