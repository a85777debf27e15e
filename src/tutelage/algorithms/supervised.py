"""The supervised losses: demonstrations, pretraining and the ptx term. Suffix: _T tokens that carry a loss."""

from torch import Tensor


def token_nll(logprobs_T: Tensor) -> Tensor:
    """−log π(y_t | x, y_<t) of each token that the model is to produce, end token included. Nats. [T]

    The mean over tokens and the mean over sequences are different objectives: the caller chooses.
    """
    if logprobs_T.dim() != 1:
        raise ValueError(f"expected packed [T] log-probabilities, got {list(logprobs_T.shape)}")
    return -logprobs_T
