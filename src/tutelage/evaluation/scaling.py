"""Gao et al.'s functional forms fitted to a gold score, with errors, and where more optimization starts to hurt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tutelage.algorithms.overoptimization import best_of_n_form, best_of_n_peak, rl_form, rl_peak
from tutelage.errors import UserError

Form = Literal["rl", "best-of-n"]
FORMS = {"rl": (rl_form, rl_peak), "best-of-n": (best_of_n_form, best_of_n_peak)}
SMALLEST_DISTANCE = 0.05  # sqrt of nats; nearer to the start log d only fits noise
LEAST_POINTS = 4


@dataclass(frozen=True)
class Fit:
    """R(d) = start + form(d; alpha, beta), d = sqrt(KL). Errors are standard errors; the peak is None without one."""

    form: Form
    alpha: float
    beta: float
    alpha_error: float
    beta_error: float
    r2: float
    points: int
    peak_distance: float | None
    peak_gain: float | None
    farthest: float

    @property
    def peak_kl(self) -> float | None:
        return None if self.peak_distance is None else self.peak_distance**2

    @property
    def peak_is_inside(self) -> bool:
        """Whether the peak lies where there are data, so that it is read and not foretold."""
        return self.peak_distance is not None and self.peak_distance <= self.farthest

    def at(self, d: float) -> float:
        return FORMS[self.form][0](d, self.alpha, self.beta)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "peak_kl": self.peak_kl, "peak_is_inside": self.peak_is_inside}


def fit_form(form: Form, kl: Sequence[float], gain: Sequence[float], runs: Sequence[Hashable]) -> Fit | None:
    """Least squares of the gain in gold over the start on d; None with too few points.

    Both forms are linear in (alpha, beta): R_RL = alpha d - beta d log d, R_bon = alpha d - beta d^2 (Gao, Schulman &
    Hilton 2023, section 3). Points of one run are not independent: the errors are clustered by run (CR1) from three
    runs on, and the plain ones (HC1) below.
    """
    if not len(kl) == len(gain) == len(runs):
        raise UserError(f"{len(kl)} KLs, {len(gain)} gains, {len(runs)} runs", where="fit_form", mend="one of each")
    d = np.sqrt(np.clip(np.asarray(kl, dtype=np.float64), 0, None))
    kept = (d >= SMALLEST_DISTANCE) & np.isfinite(np.asarray(gain, dtype=np.float64))
    if kept.sum() < LEAST_POINTS or len(np.unique(d[kept].round(6))) < 2:
        return None
    d, y = d[kept], np.asarray(gain, dtype=np.float64)[kept]
    x = np.stack([d, -d * np.log(d) if form == "rl" else -d * d], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(x, y, rcond=None)
    residual = y - x @ np.array([alpha, beta])
    errors = _errors(x, residual, [run for run, keep in zip(runs, kept, strict=True) if keep])
    spread = float(np.square(y - y.mean()).sum())
    peak = FORMS[form][1](float(alpha), float(beta)) if beta > 0 and alpha > 0 else (None, None)
    return Fit(
        form,
        float(alpha),
        float(beta),
        float(errors[0]),
        float(errors[1]),
        1 - float(np.square(residual).sum()) / spread if spread > 0 else 0.0,
        int(kept.sum()),
        peak[0],
        peak[1],
        float(d.max()),
    )


def _errors(x: NDArray[np.float64], residual: NDArray[np.float64], runs: Sequence[Hashable]) -> NDArray[np.float64]:
    """Sandwich standard errors of the two coefficients."""
    n, k = x.shape
    names = list(dict.fromkeys(runs))
    if len(names) < 3:
        clusters, scale = np.arange(n), n / (n - k)
    else:
        place = {name: i for i, name in enumerate(names)}
        clusters = np.array([place[run] for run in runs])
        scale = len(names) / (len(names) - 1) * (n - 1) / (n - k)
    scores = np.zeros((clusters.max() + 1, k))
    np.add.at(scores, clusters, x * residual[:, None])
    bread = np.linalg.pinv(x.T @ x)
    return np.sqrt(np.diag(scale * bread @ (scores.T @ scores) @ bread).clip(0))


def mean_curve(curves: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Curves of several seeds averaged step by step, with 95 % intervals of gold and proxy where there are two or more."""
    steps = [
        step
        for step in sorted({p["step"] for c in curves for p in c})
        if all(any(p["step"] == step for p in c) for c in curves)
    ]
    rows = []
    for step in steps:
        found = [next(p for p in c if p["step"] == step) for c in curves]
        row: dict[str, Any] = {"step": step, "seeds": len(found)}
        for name in ("kl", "proxy", "gold", "length"):
            values = np.array([p[name] for p in found], dtype=np.float64)
            row[name] = float(values.mean())
            if len(values) > 1 and name in ("gold", "proxy"):
                half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
                row[f"{name}_ci95"] = [row[name] - half, row[name] + half]
        rows.append(row)
    return rows


def best_gold(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The point of a curve with the highest gold, which a stopped run would have kept."""
    if not points:
        raise UserError("there is no curve", where="best_gold", mend="sample on held-out prompts in the run")
    return max(points, key=lambda p: p["gold"])
