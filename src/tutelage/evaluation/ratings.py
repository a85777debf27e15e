"""Many models on one scale: Bradley-Terry with ties as an outcome of their own (Davidson), at equal lengths too."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special, stats
from scipy.sparse import csgraph

from tutelage.errors import UserError

Array = NDArray[np.float64]
Places = NDArray[np.int64]
ELO = 400 / np.log(10)  # points that one unit of log strength is worth
PRIOR_SD = 10.0  # of gamma, for a covariate of standard deviation 1: next to none
MISFIT = 0.001  # level at which one nu for all pairs is given up
FEWEST = 20  # games under which length is not controlled for
FORETOLD = 0.95  # share of the length differences that may follow from who plays


@dataclass(frozen=True)
class Game:
    """One verdict: points is 1 where `a` won, 0.5 for a tie, 0 where `b` won."""

    a: str
    b: str
    points: float
    prompt: Hashable
    lengths: tuple[int, int] | None = None  # characters of a's and of b's answer, where known


def bradley_terry(wins: Array) -> Array:
    """Maximum-likelihood log strengths [K] (their mean is 0) of P(i beats j) = sigmoid(t_i - t_j).

    wins: [K, K], how often i beat j; a tie counts half for each. Bradley & Terry (1952). Raises UserError where the
    models fall into groups of which one never lost to another: then no finite strengths are likeliest.
    """
    wins = np.asarray(wins, dtype=np.float64)
    _require_connected(wins)
    return _by_pairs(wins, np.zeros_like(wins))[0]


def davidson(wins: Array, ties: Array) -> tuple[Array, float]:
    """Log strengths [K] (mean 0) and nu of win : tie : loss = e^t_i : nu e^((t_i + t_j) / 2) : e^t_j.

    wins: [K, K] how often i beat j; ties: [K, K] symmetric, how often they tied. Davidson (1970), equation 2.5. With
    no ties it is Bradley & Terry's model, with nu 0; with nothing else all that is known is that nobody is ahead, and
    nu is infinite. Ties alone bound no strength (nu may grow with it): the wins must connect the models.
    """
    wins, ties = np.asarray(wins, dtype=np.float64), np.asarray(ties, dtype=np.float64)
    if not ties.any() or not wins.any():
        return bradley_terry(wins + ties / 2), np.inf if ties.any() else 0.0
    _require_connected(wins)
    return _by_pairs(wins, ties)


def _by_pairs(wins: Array, ties: Array) -> tuple[Array, float]:
    """Strengths and nu from tables of counts."""
    i, j = np.triu_indices(len(wins), 1)
    counts = np.stack([wins[i, j], ties[i, j], wins[j, i]], axis=1)
    played = counts.sum(1) > 0
    strengths, nu, _ = _fitted(_contrasts(len(wins), i[played], j[played]), counts[played], len(wins))
    return strengths, nu


def davidson_with_covariate(
    a: Places, b: Places, points: Array, covariate: Array, weights: Array | None = None, start: Array | None = None
) -> tuple[Array, float, float, Array]:
    """`davidson` with t_a - t_b + gamma x in the place of t_a - t_b: strengths [K] at x = 0, nu, gamma, and a start.

    a, b: [n] places of the models of each game; points: [n] 1, 0.5 or 0 for a; covariate: [n] what favours a beside
    its strength, zero where neither is favoured. weights: [n] how often a game counts. This is Arena's style control
    (Li, Angelopoulos & Chiang 2024) with ties as an outcome of their own. gamma has a normal prior of standard
    deviation `PRIOR_SD`, which keeps it finite where the covariate alone decides all games. start: parameters near the answer, for a fit to five digits.
    """
    k = int(max(a.max(), b.max())) + 1
    design = np.concatenate([_contrasts(k, a, b), covariate[:, None]], axis=1)
    counts = np.stack([points == 1, points == 0.5, points == 0], axis=1).astype(np.float64)
    counts *= 1.0 if weights is None else weights[:, None]
    strengths, nu, found = _fitted(design, counts, k, start, 1e-9 if start is None else 1e-5)
    return strengths, nu, float(found[k - 1]), found


def _contrasts(k: int, i: Places, j: Places) -> Array:
    """[m, K-1]: t_i - t_j by coordinates of the strengths with mean 0."""
    basis = _basis(k)
    return basis[i] - basis[j]


def _basis(k: int) -> Array:
    """[K, K-1] orthonormal columns that each sum to 0."""
    return np.linalg.qr(np.eye(k) - 1 / k)[0][:, : k - 1]


def _fitted(
    design: Array, counts: Array, k: int, start: Array | None = None, tolerance: float = 1e-9
) -> tuple[Array, float, Array]:
    """Newton's method on Davidson's likelihood, which is concave in (u, log nu): strengths, nu, all parameters.

    design: [m, q] of eta = t_a - t_b (+ gamma x); counts: [m, 3] wins, ties, losses, with weights
    e^(eta / 2) : nu : e^(-eta / 2). Columns past the K-1 contrasts have the prior.
    """
    with_ties = bool(counts[:, 1].any())
    total, q = counts.sum(1), design.shape[1]
    penalty = np.zeros(q + with_ties)
    penalty[k - 1 : q] = PRIOR_SD**-2
    w = np.zeros(q + with_ties) if start is None or len(start) != q + with_ties else start.copy()

    def state(w: Array) -> tuple[float, Array]:
        half = design @ (w[:q] / 2)
        tie = w[q] if with_ties else -np.inf
        top = np.maximum(np.abs(half), tie)  # taken out before the exponentials
        parts = np.stack([np.exp(half - top), np.exp(tie - top), np.exp(-half - top)], axis=1)
        whole = parts.sum(1)
        value = ((counts[:, 0] - counts[:, 2]) * half).sum() - (total * (np.log(whole) + top)).sum()
        value += counts[:, 1].sum() * w[q] if with_ties else 0.0
        return float(value - (penalty * w * w).sum() / 2), parts / whole[:, None]

    value, p = state(w)
    for _ in range(200):
        # d log p / d eta: the score of a game less its mean, the score being 1/2, 0, -1/2.
        excess = (counts[:, 0] - counts[:, 2] - total * (p[:, 0] - p[:, 2])) / 2
        spread = total * (p[:, 0] + p[:, 2] - (p[:, 0] - p[:, 2]) ** 2) / 4
        slope = np.append(design.T @ excess, [(counts[:, 1] - total * p[:, 1]).sum()] * with_ties) - penalty * w
        bend = np.diag(penalty)
        bend[:q, :q] += design.T @ (spread[:, None] * design)
        if with_ties:
            bend[q, q] += (total * p[:, 1] * (1 - p[:, 1])).sum()
            across = design.T @ (-total * p[:, 1] * (p[:, 0] - p[:, 2]) / 2)
            bend[:q, q] += across
            bend[q, :q] += across
        step = np.linalg.solve(bend, slope)
        size = 1.0
        while (there := state(w + size * step))[0] < value - 1e-12 and size > 1e-6:
            size /= 2
        w, (value, p) = w + size * step, there
        if np.abs(size * step).max() < tolerance:
            break
    return _basis(k) @ w[: k - 1], float(np.exp(w[q])) if with_ties else 0.0, w


def ratings(games: Sequence[Game], *, resamples: int = 200) -> list[dict[str, Any]]:
    """Each model's rating in Elo points around 1000, the best first, with a 95% interval; ties are ties (Davidson).

    The interval is a percentile bootstrap over prompts: the games of one prompt are not independent. Where a model
    never lost, or never won (ties do not help), half a win each way is added between the pairs that met (and `prior`
    says so). Where ties are far from one nu for all pairs (two models that often say the same beside others), each pair
    has its own (and `ties_by_pair` says so): one for all would take few ties for a great distance.
    `length_controlled`: rating, interval and gamma at equal lengths, where the games tell lengths and these can be
    told from strengths; None elsewhere.
    """
    names = sorted({name for game in games for name in (game.a, game.b)})
    if len(names) < 2:
        raise UserError("needs games between two models", where="ratings", mend="compare two models or more")
    if odd := [game.points for game in games if game.points not in (0, 0.5, 1)]:
        raise UserError(f"a verdict of {odd[0]} points", where="ratings", mend="1 is a win, 0.5 a tie, 0 a loss")
    place = {name: i for i, name in enumerate(names)}
    prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(game.prompt for game in games))}
    won, tied = (np.zeros((len(prompts), len(names), len(names))) for _ in range(2))
    for game in games:
        a, b, p = place[game.a], place[game.b], prompts[game.prompt]
        won[p, a, b] += game.points == 1
        won[p, b, a] += game.points == 0
        tied[p, a, b] += game.points == 0.5
        tied[p, b, a] += game.points == 0.5
    wins, ties = won.sum(0), tied.sum(0)
    prior = not _connected(wins)
    met = ((wins + wins.T + ties) > 0).astype(float) / 2
    by_pair = not _one_nu(wins + prior * met, ties)
    counted = tied * (not by_pair)  # with a nu of each pair ties say nothing of strengths
    strengths, _ = davidson(wins + prior * met, counted.sum(0))
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(resamples):
        rows = rng.integers(0, len(prompts), len(prompts))
        some_wins, some_ties = won[rows].sum(0), counted[rows].sum(0)
        unbounded = prior or not _connected(some_wins)
        draws.append(davidson(some_wins + unbounded * met, some_ties)[0])
    found = _elo_rows(strengths, draws)
    decisive = [game for game in games if game.points != 0.5] if by_pair else games
    even = at_equal_length(decisive, place, prompts, resamples)
    table = [
        {
            "model": name,
            **found[i],
            "games": int((wins[i] + wins[:, i] + ties[i]).sum()),
            "ties": int(ties[i].sum()),
            "prior": prior,
            "ties_by_pair": by_pair,
            "length_controlled": even[i] if even else None,
        }
        for name, i in place.items()
    ]
    return sorted(table, key=lambda row: -row["rating"])


def _one_nu(wins: Array, ties: Array) -> bool:
    """Whether one nu for all pairs fits the ties, by the likelihood ratio against a nu for each (level `MISFIT`)."""
    i, j = np.triu_indices(len(wins), 1)
    counts = np.stack([wins[i, j], ties[i, j], wins[j, i]], axis=1)
    counts = counts[counts.sum(1) > 0]
    i, j = (one[(wins[i, j] + wins[j, i] + ties[i, j]) > 0] for one in (i, j))
    if len(counts) < 2 or not ties.any() or not wins.any():
        return True
    strengths, nu = davidson(wins, ties)
    eta = strengths[i] - strengths[j]
    parts = np.stack([np.exp(eta / 2), np.full_like(eta, nu), np.exp(-eta / 2)], axis=1)
    common = (counts * np.log(parts / parts.sum(1, keepdims=True))).sum()
    # With a nu of its own a pair's share of ties is met exactly, and the rest is Bradley & Terry's.
    eta = np.subtract(*(bradley_terry(wins)[place] for place in (i, j)))
    share = counts[:, 1] / counts.sum(1)
    apart = special.xlogy(counts[:, 1], share) + special.xlogy(counts[:, 0] + counts[:, 2], 1 - share)
    apart -= counts[:, 0] * np.logaddexp(0, -eta) + counts[:, 2] * np.logaddexp(0, eta)
    return bool(stats.chi2.sf(2 * (apart.sum() - common), len(counts) - 1) >= MISFIT)


def at_equal_length(
    games: Sequence[Game], place: Mapping[str, int], prompts: Mapping[Hashable, int], resamples: int
) -> list[dict[str, Any]] | None:
    """Each model's rating if all answers to a prompt were of one length; None where that cannot be told.

    The covariate is Arena's: (len_a - len_b) / (len_a + len_b), divided by its standard deviation. It cannot be told
    with fewer than `FEWEST` games, without lengths, where a model's strength is not finite, or where the models that
    play foretell the difference in length nearly all by themselves (R^2 above `FORETOLD`).
    """
    known = [g for g in games if g.lengths is not None]
    if len(known) < max(FEWEST, len(games)):
        return None
    a, b = (np.array([place[getattr(g, side)] for g in known]) for side in ("a", "b"))
    points = np.array([g.points for g in known])
    prompt = np.array([prompts[g.prompt] for g in known])
    lengths = np.array([g.lengths for g in known], dtype=np.float64)
    covariate = (lengths[:, 0] - lengths[:, 1]) / np.maximum(lengths.sum(1), 1)
    if not _can_be_told(covariate, _contrasts(len(place), a, b)) or not _connected(_wins(a, b, points, len(place))):
        return None
    covariate /= covariate.std()
    strengths, _, gamma, start = davidson_with_covariate(a, b, points, covariate)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(resamples):
        weights = np.bincount(rng.integers(0, len(prompts), len(prompts)), minlength=len(prompts))[prompt]
        kept = weights > 0
        if not _connected(_wins(a[kept], b[kept], points[kept], len(place))):
            continue  # no finite strengths are likeliest in this one
        fit = davidson_with_covariate(a, b, points, covariate, weights.astype(np.float64), start)
        draws.append(fit[0])
    return [{**row, "gamma": gamma} for row in _elo_rows(strengths, draws)]


def _elo_rows(strengths: Array, draws: Sequence[Array]) -> list[dict[str, Any]]:
    center = 1000 + ELO * strengths
    low, high = 1000 + ELO * np.quantile(draws, [0.025, 0.975], axis=0) if len(draws) else (center, center)
    return [{"rating": float(r), "ci95": [float(lo), float(hi)]} for r, lo, hi in zip(center, low, high, strict=True)]


def _can_be_told(covariate: Array, contrasts: Array) -> bool:
    """Whether something of the covariate is left when the models that play are known."""
    spread = float((covariate**2).sum())
    if spread == 0 or covariate.std() == 0:
        return False
    rest = covariate - contrasts @ np.linalg.lstsq(contrasts, covariate, rcond=None)[0]
    return float((rest**2).sum()) > (1 - FORETOLD) * spread


def _wins(a: Places, b: Places, points: Array, k: int) -> Array:
    """[K, K] games that a row's model won from a column's."""
    table = np.zeros((k, k))
    np.add.at(table, (a, b), points == 1)
    np.add.at(table, (b, a), points == 0)
    return table


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
