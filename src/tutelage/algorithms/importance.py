"""Weights of tokens that an older or another policy drew."""

from torch import Tensor


def truncated_importance_weights(logprobs_T: Tensor, sampled_T: Tensor, cap: float) -> Tensor:
    """w_t = min(pi(a_t | s_t) / mu(a_t | s_t), cap), no gradient. [T]

    logprobs_T under the policy that is trained, before the update; sampled_T under mu, which drew the tokens (older
    weights, or a sampler that rounds otherwise). Truncation bounds the variance at the price of a bias towards mu.
    Ionides 2008; rho-bar of V-trace (Espeholt et al. 2018, arXiv 1802.01561, equation 1).
    """
    if logprobs_T.shape != sampled_T.shape or logprobs_T.dim() != 1:
        raise ValueError(f"logprobs {tuple(logprobs_T.shape)} and sampled {tuple(sampled_T.shape)} are not [T] both")
    return (logprobs_T - sampled_T).exp().clamp(max=cap).detach()
