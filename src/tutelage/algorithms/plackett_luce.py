"""DPO on whole rankings of K answers. Suffixes: _N answers of all prompts end to end, _P prompts."""

from torch import Tensor

from tutelage.algorithms.ranking import plackett_luce_log_likelihood


def plackett_luce_dpo_loss(log_ratio_N: Tensor, ranks_N: Tensor, offsets: Tensor, beta: float) -> Tensor:
    """−Σ_k log( e^{β·h_k} / Σ_{j≥k} e^{β·h_j} ) in rank order, h the log-ratios (Rafailov et al. 2023, equation 20). [P]

    The likelihood of the ranking as one event; for K = 2 it is the DPO loss. No ties; rank 0 takes no part.
    """
    return -plackett_luce_log_likelihood(beta * log_ratio_N, ranks_N, offsets)
