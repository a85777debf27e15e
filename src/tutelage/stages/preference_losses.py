"""Which formula a preference config names, on the answers of a micro-batch.

Suffixes: _N answers of all comparisons end to end, _P comparisons (KTO: answers), _M ordered pairs.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tutelage.algorithms.dpo import chosen_nll, conservative_dpo_loss, dpo_loss, implicit_reward, robust_dpo_loss
from tutelage.algorithms.ipo import ipo_loss
from tutelage.algorithms.kto import kto_loss
from tutelage.algorithms.orpo import orpo_loss
from tutelage.algorithms.plackett_luce import plackett_luce_dpo_loss
from tutelage.algorithms.ranking import ordered_pairs, pair_accuracy
from tutelage.algorithms.shapes import sum_by
from tutelage.algorithms.simpo import simpo_loss
from tutelage.configs import DPOConfig, IPOConfig, KTOConfig, ORPOConfig, PreferenceConfig, SimPOConfig

Sums = dict[str, tuple[float, float]]  # metric -> (weighted sum, sum of weights)


@dataclass
class Answers:
    """The answers of a micro-batch: all answers of each comparison lie together.

    Every answer with a rank takes part; in KTO each answer stands alone, rank 1 is a thumb up and 2 one down.
    """

    logprobs_N: Tensor  # sums over the answers' tokens, end token included
    reference_N: Tensor  # the same under the reference; zeros where there is none
    tokens_N: Tensor
    ranks_N: Tensor  # 0 takes no part
    offsets: Tensor  # [P+1]
    baseline: Tensor = field(default_factory=lambda: torch.zeros(()))  # KTO's z_0
    right_P: Tensor | None = None  # the chance that each comparison's order is right; sure where there is none

    def __post_init__(self) -> None:
        self.better, self.worse, self.comparison = ordered_pairs(self.ranks_N, self.offsets)

    def log_ratios(self, logprob: str) -> Tensor:
        """log pi - log pi_ref of each answer: `sum` over its tokens or their `mean`. [N]"""
        sums_N = self.logprobs_N - self.reference_N
        return sums_N if logprob == "sum" else sums_N / self.tokens_N

    @property
    def means_N(self) -> Tensor:
        return self.logprobs_N / self.tokens_N

    def pair(self, values_N: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the better and of the worse answer of every ordered pair, [M] each."""
        return values_N[self.better], values_N[self.worse]

    def reversed(self) -> "Answers":
        """Comparisons of two answers in the other order; what longer ones become counts nothing, since they are sure."""
        ranks_N = torch.where((self.ranks_N == 1) | (self.ranks_N == 2), 3 - self.ranks_N, 0)
        return replace(self, ranks_N=ranks_N, right_P=None)

    def mean_over_pairs(self, values_M: Tensor) -> Tensor:
        """Mean over the pairs of each comparison: a comparison counts once, however many answers it has. [P]"""
        count = len(self.offsets) - 1
        pairs_P = torch.bincount(self.comparison, minlength=count).clamp(min=1)
        return sum_by(self.comparison, values_M, count) / pairs_P


def preference_loss(config: PreferenceConfig, answers: Answers) -> Tensor:
    """The loss of each comparison (KTO: of each answer). [P]

    Of a soft label the expected one, p L(order) + (1 − p) L(reverse): for DPO the cross-entropy with p, which is cDPO with
    a label smoothing of its own for each pair (Mitchell 2023).
    """
    if answers.right_P is None:
        return _loss_of_order(config, answers)
    in_order_P = _loss_of_order(config, replace(answers, right_P=None))
    return answers.right_P * in_order_P + (1 - answers.right_P) * _loss_of_order(config, answers.reversed())


def _loss_of_order(config: PreferenceConfig, answers: Answers) -> Tensor:
    match config:
        case DPOConfig(loss="plackett-luce"):
            ratios_N = answers.log_ratios(config.logprob)
            loss_P = plackett_luce_dpo_loss(ratios_N, answers.ranks_N, answers.offsets, config.beta)
            return loss_P + _nll(config.nll_coef, answers)
        case DPOConfig():
            pairs = answers.pair(answers.log_ratios(config.logprob))
            return answers.mean_over_pairs(_dpo(config, *pairs)) + _nll(config.nll_coef, answers)
        case IPOConfig():
            pairs = answers.pair(answers.log_ratios(config.logprob))
            return answers.mean_over_pairs(ipo_loss(*pairs, config.tau)) + _nll(config.nll_coef, answers)
        case KTOConfig():
            weights = (config.desirable_weight, config.undesirable_weight)
            desirable_N = answers.ranks_N == 1
            return kto_loss(answers.log_ratios("sum"), desirable_N, answers.baseline, config.beta, *weights)
        case ORPOConfig():
            return answers.mean_over_pairs(orpo_loss(*answers.pair(answers.means_N), config.odds_weight))
        case SimPOConfig():
            loss_M = simpo_loss(*answers.pair(answers.means_N), config.beta, config.gamma)
            return answers.mean_over_pairs(loss_M) + _nll(config.nll_coef, answers)
    raise TypeError(f"no loss for {type(config).__name__}")


def _dpo(config: DPOConfig, chosen_M: Tensor, rejected_M: Tensor) -> Tensor:
    match config.loss:
        case "cdpo":
            return conservative_dpo_loss(chosen_M, rejected_M, config.beta, config.label_smoothing)
        case "robust":
            return robust_dpo_loss(chosen_M, rejected_M, config.beta, config.label_smoothing)
        case _:
            return dpo_loss(chosen_M, rejected_M, config.beta)


def _nll(weight: float, answers: Answers) -> Tensor:
    """The weighted NLL a token of each pair's better answer. [P]"""
    better = answers.better
    return weight * answers.mean_over_pairs(chosen_nll(answers.logprobs_N[better], answers.tokens_N[better]))


def rewards(config: PreferenceConfig, answers: Answers) -> Tensor:
    """Implicit reward of each answer, as its loss compares them; no gradient. [N]"""
    match config:
        case DPOConfig():
            return implicit_reward(answers.log_ratios(config.logprob), config.beta)
        case IPOConfig():
            return implicit_reward(answers.log_ratios(config.logprob), config.tau)
        case KTOConfig():
            return implicit_reward(answers.log_ratios("sum"), config.beta)
        case ORPOConfig():
            return implicit_reward(answers.means_N, config.odds_weight)
        case SimPOConfig():
            return implicit_reward(answers.means_N, config.beta)
    raise TypeError(f"no reward for {type(config).__name__}")


@torch.no_grad()
def sums(answers: Answers, rewards_N: Tensor, weights_P: Tensor) -> Sums:
    """What is logged, under TRL's names, over pairs; of answers that stand alone, over each side.

    weights_P: of the comparisons. A soft label stands in both orders, so without weights each mean would be of both alike.
    """
    chosen, rejected, share = answers.better, answers.worse, weights_P[answers.comparison]
    shares = {"chosen": share, "rejected": share}
    if not len(chosen):
        chosen, rejected = (answers.ranks_N == 1).nonzero()[:, 0], (answers.ranks_N == 2).nonzero()[:, 0]
        shares = {"chosen": weights_P[chosen], "rejected": weights_P[rejected]}

    def over(values: Tensor, side: str) -> tuple[float, float]:
        return float((values * shares[side]).sum()), float(shares[side].sum())

    found: Sums = {}
    for side, index in (("chosen", chosen), ("rejected", rejected)):
        found[f"rewards/{side}"] = over(rewards_N[index], side)
        found[f"logps/{side}"] = over(answers.logprobs_N[index], side)
    found["nll_loss"] = over(chosen_nll(answers.logprobs_N[chosen], answers.tokens_N[chosen]), "chosen")
    if len(answers.better):
        found["rewards/accuracies"] = over(pair_accuracy(rewards_N, chosen, rejected), "chosen")
    return found


def means(totals: Sums) -> dict[str, float]:
    """Means out of sums; the margin is the difference of the two means. What was not seen is left out."""
    row = {name: total / count for name, (total, count) in totals.items() if count}
    if "rewards/chosen" in row and "rewards/rejected" in row:
        row["rewards/margins"] = row["rewards/chosen"] - row["rewards/rejected"]
    return row
