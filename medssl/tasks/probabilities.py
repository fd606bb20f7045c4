"""From a network's outputs for classes to log-probabilities, in training and in prediction alike.

`cross_entropy`: p_k = exp(z_k) / sum_j exp(z_j). `log_sigmoid`: p_k = s(z_k) / sum_j s(z_j) with the logistic function s:
each class is first answered by itself, yes or no, and the answers are then made to add up to one. An answer has a ceiling,
so that one large output can't drown the others.
"""

from torch import Tensor
from torch.nn import functional

from medssl.losses import at_least_float32


def log_probabilities(outputs: Tensor, loss: str) -> Tensor:
    """Turn outputs (..., k) into the log-probabilities (..., k) that the setting `loss` trains; at least in float32."""
    outputs = at_least_float32(outputs)
    # log s(z) are logits again: their softmax is s(z_k) / sum_j s(z_j)
    return functional.log_softmax(functional.logsigmoid(outputs) if loss == "log_sigmoid" else outputs, dim=-1)
