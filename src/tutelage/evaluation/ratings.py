"""Many models on one scale: Bradley-Terry, with ties as half wins or as an outcome of their own (Davidson)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse
from scipy.sparse import csgraph

from tutelage.errors import UserError

Array = NDArray[np.float64]
ELO = 400 / np.log(10)  # points that one unit of log strength is worth


@dataclass(frozen=True)
class Game:
    """One verdict: points is 1 where `a` won, 0.5 for a tie, 0 where `b` won."""

    a: str
    b: str
    points: float
    prompt: Hashable


def bradley_terry(wins: Array, start: Array | None = None) -> Array:
    """Maximum-likelihood log strengths [K] (their mean is 0) of P(i beats j) = sigmoid(t_i - t_j).

    wins: [K, K], how often i beat j; a tie counts half for each. Bradley & Terry (1952); found by the
    minorization p_i <- W_i / sum_j n_ij / (p_i + p_j) of Hunter (2004), equation 3. Raises UserError where the
    models fall into groups of which one never lost to another: then no finite strengths are likeliest. `start`: log
    strengths near the answer, to find it sooner.
    """
    wins = np.asarray(wins, dtype=np.float64)
    _require_connected(wins)
    games, total = wins + wins.T, wins.sum(1)
    strength = np.ones(len(wins)) if start is None else np.exp(start)
    for _ in range(100_000):
        shared = games / (strength[:, None] + strength[None, :])
        new = total / shared.sum(1)
        new /= np.exp(np.log(new).mean())
        done = np.abs(np.log(new / strength)).max() < 1e-10
        strength = new
        if done:
            break
    return np.log(strength)


def davidson(wins: Array, ties: Array) -> tuple[Array, float]:
    """Log strengths [K] (mean 0) and nu of win : tie : loss = e^t_i : nu e^((t_i + t_j) / 2) : e^t_j.

    wins: [K, K] how often i beat j; ties: [K, K] symmetric, how often they tied. Davidson (1970), equation 2.5.
    """
    wins, ties = np.asarray(wins, dtype=np.float64), np.asarray(ties, dtype=np.float64)
    _require_connected(wins + ties / 2)
    k = len(wins)
    i, j = np.triu_indices(k, 1)
    counts = np.stack([wins[i, j], ties[i, j], wins[j, i]], axis=1)
    if not ties.any():
        return bradley_terry(wins), 0.0

    def objective(parameters: Array) -> float:
        t, log_nu = parameters[:-1], parameters[-1]
        logits = np.stack([t[i], log_nu + (t[i] + t[j]) / 2, t[j]], axis=1)
        return float(-(counts * (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))).sum())

    found = optimize.minimize(objective, np.zeros(k + 1), method="BFGS", options={"gtol": 1e-7})
    return found.x[:-1] - found.x[:-1].mean(), float(np.exp(found.x[-1]))


def ratings(games: Sequence[Game], *, resamples: int = 200) -> list[dict[str, Any]]:
    """Each model's Bradley-Terry rating in Elo points around 1000, the best first, with a 95% interval.

    The interval is a percentile bootstrap over prompts: the games of one prompt are not independent. Where a model
    won or lost everything, half a win each way is added between the pairs that met (and `prior` says so).
    """
    names = sorted({name for game in games for name in (game.a, game.b)})
    if len(names) < 2:
        raise UserError("needs games between two models", where="ratings", mend="compare two models or more")
    place = {name: i for i, name in enumerate(names)}
    prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(game.prompt for game in games))}
    by_prompt = np.zeros((len(prompts), len(names), len(names)))
    for game in games:
        a, b, p = place[game.a], place[game.b], prompts[game.prompt]
        by_prompt[p, a, b] += game.points
        by_prompt[p, b, a] += 1 - game.points
    whole = by_prompt.sum(0)
    prior = not _connected(whole)
    met = ((whole + whole.T) > 0).astype(float) / 2
    strengths = bradley_terry(whole + prior * met)
    center = 1000 + ELO * strengths
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(resamples):
        resampled = by_prompt[rng.integers(0, len(prompts), len(prompts))].sum(0)
        unbounded = prior or not _connected(resampled)
        draws.append(1000 + ELO * bradley_terry(resampled + unbounded * met, strengths))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0) if draws else (center, center)
    rows = [
        {
            "model": name,
            "rating": float(center[i]),
            "ci95": [float(low[i]), float(high[i])],
            "games": int((whole[i] + whole[:, i]).sum()),
            "prior": prior,
        }
        for name, i in place.items()
    ]
    return sorted(rows, key=lambda row: -row["rating"])


def _connected(wins: Array) -> bool:
    """Whether from each model a chain of wins leads to every other."""
    return int(csgraph.connected_components(sparse.csr_matrix(wins > 0), connection="strong")[0]) == 1


def _require_connected(wins: Array) -> None:
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or (wins < 0).any():
        raise UserError(f"wins of shape {wins.shape}", where="ratings", mend="give a square table of counts")
    if not _connected(wins):
        raise UserError(
            "some models never lost to the others, so that no finite strengths are likeliest",
            where="ratings",
            mend="compare them on more prompts, or add half a win each way",
        )
