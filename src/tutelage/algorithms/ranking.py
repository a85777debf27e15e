"""The reward model's losses on rankings: all pairs of a prompt form one batch element.

Scores of all completions lie end to end, `[N]`, with `offsets [P+1]` of the P prompts; `ranks [N]`:
1 is best, equal ranks tie, 0 is not ranked.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def ordered_pairs(ranks_N: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices [M] of the better and the worse completion of each ordered pair, and their prompt [M]."""
    return _pairs(ranks_N, offsets, ties=False)


def tied_pairs(ranks_N: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices [M], [M] of each tied pair and their prompt [M]."""
    return _pairs(ranks_N, offsets, ties=True)


def _pairs(ranks_N: Tensor, offsets: Tensor, *, ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    if len(ranks_N) != int(offsets[-1]):
        raise ValueError(f"{len(ranks_N)} ranks for {int(offsets[-1])} completions")
    prompt_N = torch.arange(len(offsets) - 1).repeat_interleave(offsets.diff())
    ranked = (ranks_N > 0)[:, None] & (ranks_N > 0)[None, :]
    same = (prompt_N[:, None] == prompt_N[None, :]) & ranked
    order = ranks_N[:, None] == ranks_N[None, :] if ties else ranks_N[:, None] < ranks_N[None, :]
    chosen = same & order
    if ties:
        chosen &= torch.ones_like(chosen).triu(1)
    better, worse = chosen.nonzero(as_tuple=True)
    return better, worse, prompt_N[better]


def pairwise_loss(scores_N: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """−log σ(r_w − r_l) for each pair (Ouyang et al. 2022, equation 1). [M]"""
    return -logsigmoid(scores_N[better] - scores_N[worse])


def pairs_per_prompt(offsets: Tensor) -> Tensor:
    """C(K, 2) of each prompt: the denominator that the paper prints, though it drops ties. [P]"""
    k = offsets.diff()
    return k * (k - 1) // 2


def ranking_loss(scores_N: Tensor, ranks_N: Tensor, offsets: Tensor) -> Tensor:
    """Per prompt, −1/C(K,2) · Σ_{w>l} log σ(r_w − r_l), ties dropped (Ouyang et al. 2022, equation 1). [P]"""
    better, worse, prompt = ordered_pairs(ranks_N, offsets)
    totals = scores_N.new_zeros(len(offsets) - 1).index_add(0, prompt, pairwise_loss(scores_N, better, worse))
    return totals / pairs_per_prompt(offsets).clamp(min=1)


def davidson_loss(scores_N: Tensor, ranks_N: Tensor, offsets: Tensor, nu: float = 1.0) -> Tensor:
    """Per prompt, mean −log P over all ranked pairs, ties learnt (Davidson 1970). [P]

    win : tie : loss = e^{r_i} : ν e^{(r_i + r_j)/2} : e^{r_j}.
    """
    log_nu = torch.tensor(nu).log()

    def log_normalizer(i: Tensor, j: Tensor) -> Tensor:
        a, b = scores_N[i], scores_N[j]
        return torch.stack([a, b, log_nu + (a + b) / 2]).logsumexp(0)

    def win(i: Tensor, j: Tensor) -> Tensor:
        return log_normalizer(i, j) - scores_N[i]

    def tie(i: Tensor, j: Tensor) -> Tensor:
        return log_normalizer(i, j) - (log_nu + (scores_N[i] + scores_N[j]) / 2)

    return _with_ties(scores_N, ranks_N, offsets, win, tie)


def rao_kupper_loss(scores_N: Tensor, ranks_N: Tensor, offsets: Tensor, theta: float = 2.0) -> Tensor:
    """Per prompt, mean −log P over all ranked pairs, ties learnt (Rao and Kupper 1967). [P]

    P(i > j) = σ(r_i − r_j − log θ); a tie has the rest, (θ² − 1)·P(i > j)·P(j > i).
    """
    log_theta = torch.tensor(theta).log()

    def win(i: Tensor, j: Tensor) -> Tensor:
        return -logsigmoid(scores_N[i] - scores_N[j] - log_theta)

    def tie(i: Tensor, j: Tensor) -> Tensor:
        return win(i, j) + win(j, i) - torch.tensor(theta**2 - 1).log()

    return _with_ties(scores_N, ranks_N, offsets, win, tie)


def _with_ties(scores_N: Tensor, ranks_N: Tensor, offsets: Tensor, win, tie) -> Tensor:  # type: ignore[no-untyped-def]
    better, worse, prompt = ordered_pairs(ranks_N, offsets)
    first, second, tied_prompt = tied_pairs(ranks_N, offsets)
    totals = scores_N.new_zeros(len(offsets) - 1)
    totals = totals.index_add(0, prompt, win(better, worse)).index_add(0, tied_prompt, tie(first, second))
    return totals / pairs_per_prompt(offsets).clamp(min=1)


def pair_accuracy(scores_N: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """1 where the better completion scores higher, 1/2 where the scores are equal, else 0. [M]"""
    difference = scores_N[better] - scores_N[worse]
    return (difference > 0).float() + 0.5 * (difference == 0).float()
