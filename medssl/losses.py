"""Self-supervised losses: pure functions of tensors, computed in float32 (float64 stays), in log-sum-exp form.

They know nothing of ranks: with several, those that compare rows take `medssl.ranks.gathered` rows, and means over a mask
are multiplied by `medssl.ranks.share`. Bad input raises ValueError, "field: found X, expected Y".

Axis letters: b batch, e embedding (or the values of a patch), k prototypes, n patches.
"""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor
from torch.nn import functional


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two tensors of one shape."""
    return functional.l1_loss(at_least_float32(prediction), at_least_float32(target))


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference where the mask, a bool tensor that broadcasts to the shape of both, is true.

    An empty mask gives 0 with a zero gradient.
    """
    return _masked_difference(prediction, target, mask).abs().sum() / _count(mask, prediction)


def masked_l2(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference where the mask is true, as `masked_l1`."""
    return _masked_difference(prediction, target, mask).square().sum() / _count(mask, prediction)


def masked_patches(
    prediction: Tensor, patches: Tensor, masked: Tensor, foreground: Tensor | None = None, normalise: bool = True
) -> Tensor:
    """Mean squared error of predicted patches (b, n, e) over those that are masked and, if given, foreground: both (b, n) bool.

    The target is each patch less its mean by its standard deviation, sqrt(unbiased variance + 1e-6), unless
    ``normalise`` is off. He et al., Masked Autoencoders, 2021, section 3 (https://arxiv.org/abs/2111.06377). Where a
    patch is empty that divides noise by nearly 0: leave it out by `patch_foreground`. Nothing selected gives 0 with a
    zero gradient.
    """
    target = at_least_float32(patches)
    if normalise:
        variance, mean = torch.var_mean(target, -1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    selected = masked if foreground is None else masked & foreground
    return masked_l2(prediction, target, selected[..., None])


def patch_foreground(patches: Tensor, least: float = 1e-4) -> Tensor:
    """Which patches (b, n, e) vary, (b, n) bool: variance above ``least``, for intensities 0..1 a deviation of 0.01."""
    return at_least_float32(patches).var(-1) > least


def nt_xent(a: Tensor, b: Tensor, temperature: float, groups: Tensor | None = None) -> Tensor:
    """Normalised temperature-scaled cross-entropy of two views, each (b, ...), flattened to (b, e); row i of both is one pair.

    z = unit rows of [a; b], S = z z^T / temperature without its diagonal, the target of i is (i + b) mod 2b; mean
    cross-entropy. Equation 1 of Chen et al., SimCLR, 2020 (https://arxiv.org/abs/2002.05709). ``groups`` (b,), whole
    numbers, say which pairs are of one patient: they are no negatives of each other. Raises ValueError for a
    temperature that is not positive or fewer than two pairs.
    """
    return nt_xent_of_products(products(torch.cat(_two_views(a, b))), temperature, groups)


def nt_xent_of_products(products: Tensor, temperature: float, groups: Tensor | None = None) -> Tensor:
    """`nt_xent` from the products (2b, 2b) of all rows [a; b] with each other, which is all that it needs to know of them."""
    _check_positive("temperature", temperature)
    pairs = len(products) // 2
    index = torch.arange(2 * pairs, device=products.device)
    target = index.roll(pairs)
    if groups is not None and groups.shape != (pairs,):
        raise ValueError(f"groups: found shape {list(groups.shape)}, expected one number a pair, [{pairs}]")
    group = index if groups is None else groups.repeat(2)
    left_out = group == group[:, None]
    left_out[index, target] = False
    length = products.diagonal().clamp(min=1e-24).sqrt()  # unit rows would be one more copy of long ones
    cosines = products / length / length[:, None]
    return functional.cross_entropy((cosines / temperature).masked_fill(left_out, float("-inf")), target)


def products(rows: Tensor) -> Tensor:
    """The products (b, b) of rows (b, e) with each other, as exact as the rows are."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ rows.T


def nt_xent_chance(pairs: int) -> float:
    """The value of `nt_xent` without groups when it cannot tell the pairs apart: ln(2b - 1)."""
    return log(2 * pairs - 1)


def regularized_contrastive(reconstruction: Tensor, contrastive: Tensor) -> Tensor:
    """System A's total, r + c * r: the contrastive loss counts as much as the reconstruction is still wrong."""
    return reconstruction + contrastive * reconstruction


def barlow_twins(a: Tensor, b: Tensor, off_diagonal: float = 0.005) -> Tensor:
    """Cross-correlation C of two views (b, e) against the identity: sum (C_ii - 1)^2 + off_diagonal * sum of the other C_ij^2.

    Features are standardised over the batch with the biased variance + 1e-5, batch normalisation without weights. Equation 1
    of Zbontar et al., Barlow Twins, 2021 (https://arxiv.org/abs/2103.03230). Raises ValueError for fewer than two rows.
    """
    a, b = (functional.batch_norm(view, None, None, training=True, eps=1e-5) for view in _two_views(a, b))
    diagonal = (a * b).mean(0)
    others = _sum_of_squares(a, b) / len(a) ** 2 - diagonal.square().sum()
    return (diagonal - 1).square().sum() + off_diagonal * others


def vicreg(a: Tensor, b: Tensor, similarity: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Tensor:
    """The weighted sum of `vicreg_parts` of two views (b, e)."""
    parts = vicreg_parts(a, b)
    return similarity * parts["similarity"] + variance * parts["variance"] + covariance * parts["covariance"]


def vicreg_parts(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Similarity, variance and covariance of two views (b, e), unweighted.

    Mean squared difference; hinge of the standard deviations, max(0, 1 - sqrt(variance + 1e-4)), mean over features and
    both views; squared covariances outside the diagonal by e, of both views together. Variances are unbiased. Bardes et
    al., VICReg, 2021, section 4 (https://arxiv.org/abs/2105.04906). Raises ValueError for fewer than two rows.
    """
    a, b = _two_views(a, b)
    hinges, covariances = [], []
    for centred in (a - a.mean(0), b - b.mean(0)):
        variances = centred.square().sum(0) / (len(a) - 1)
        hinges.append(functional.relu(1 - (variances + 1e-4).sqrt()).mean())
        squares = _sum_of_squares(centred, centred) / (len(a) - 1) ** 2
        covariances.append((squares - variances.square().sum()) / a.shape[1])
    return {
        "similarity": functional.mse_loss(a, b),
        "variance": torch.stack(hinges).mean(),
        "covariance": torch.stack(covariances).sum(),
    }


def swav(
    scores: Sequence[Tensor],
    assigned: int = 2,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    rounds: int = 3,
    queue_scores: Sequence[Tensor] | None = None,
) -> Tensor:
    """Swapped prediction: the codes of each of the first ``assigned`` views predict every other view.

    ``scores``, one (b, k) tensor a view, are the cosines of embeddings and prototypes, the assigned views first. Codes are
    `sinkhorn` of a view's scores, without gradient; mean cross-entropy of softmax(scores / temperature) over rows, the
    other views, and the assigned views. ``queue_scores``, one (q, k) tensor an assigned view, take part in the balancing
    only; with fewer rows than prototypes no code can be a whole one. Equation 2 and section 3.3 of Caron et al., SwAV,
    2020 (https://arxiv.org/abs/2006.09882).
    """
    _check_positive("temperature", temperature)
    _check_scores(scores, assigned, queue_scores)
    views = [at_least_float32(view) for view in scores]
    predicted = [functional.log_softmax(view / temperature, 1) for view in views]
    total = views[0].new_zeros(())
    for view in range(assigned):
        rows = views[view] if queue_scores is None else torch.cat([views[view], queue_scores[view].to(views[view])])
        codes = sinkhorn(rows, epsilon, rounds)[: len(views[view])]
        others = torch.stack(predicted[:view] + predicted[view + 1 :]).mean(0)
        total = total - (codes * others).sum(1).mean() / assigned
    return total


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, rounds: int = 3) -> Tensor:
    """Codes of the scores (b, k): exp(scores / epsilon) scaled so that all prototypes get equal shares; rows sum to 1.

    Each round scales the columns, then the rows, in the log domain, so that nothing overflows at a small epsilon.
    """
    _check_positive("epsilon", epsilon)
    _check_positive("rounds", rounds)
    codes = at_least_float32(scores) / epsilon
    for _ in range(rounds):
        codes = functional.log_softmax(functional.log_softmax(codes, 0), 1)
    return codes.exp()


def swav_chance(prototypes: int) -> float:
    """The value of `swav` when it has collapsed, every code and prediction uniform: ln k."""
    return log(prototypes)


def at_least_float32(x: Tensor) -> Tensor:
    """Raise half precision to float32; float32 and float64 stay."""
    return x if x.dtype == torch.float64 else x.float()


def _sum_of_squares(x: Tensor, y: Tensor) -> Tensor:
    """The sum of all squares of x^T y, (e, e), for rows (b, e).

    It equals the sum of (x x^T) * (y y^T), both (b, b), which costs b / e as much when the rows are few and long.
    """
    if len(x) < x.shape[1]:
        gram = products(x)
        return (gram * (gram if y is x else products(y))).sum()
    with torch.autocast(x.device.type, enabled=False):
        return (x.T @ y).square().sum()


def _masked_difference(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """prediction - target, 0 where the mask is false: zeroed before any power, so that no gradient comes from there."""
    if prediction.shape != target.shape:
        raise ValueError(f"target: found shape {list(target.shape)}, expected the prediction's, {list(prediction.shape)}")
    return (at_least_float32(prediction) - at_least_float32(target)).masked_fill(~_fitting(mask, prediction), 0)


def _count(mask: Tensor, prediction: Tensor) -> Tensor:
    """How many elements the mask selects, at least 1 so that a mean over none is 0."""
    return _fitting(mask, prediction).sum().clamp(min=1)


def _fitting(mask: Tensor, prediction: Tensor) -> Tensor:
    """The mask in the shape of the prediction."""
    try:
        return mask.bool().expand_as(prediction)
    except RuntimeError:
        wanted = f"one that broadcasts to {list(prediction.shape)}"
        raise ValueError(f"mask: found shape {list(mask.shape)}, expected {wanted}") from None


def _two_views(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both views flattened to (b, e), at least float32."""
    if a.shape != b.shape:
        raise ValueError(f"views: found shapes {list(a.shape)} and {list(b.shape)}, expected two of one shape")
    if len(a) < 2:
        raise ValueError(f"batch: found {len(a)} rows, expected at least 2")
    return at_least_float32(a).flatten(1), at_least_float32(b).flatten(1)


def _check_scores(scores: Sequence[Tensor], assigned: int, queue_scores: Sequence[Tensor] | None) -> None:
    """Views of one shape, at least one assigned and one more, a queue for each assigned view."""
    if len(scores) < 2 or len({view.shape for view in scores}) != 1:
        raise ValueError(f"scores: found shapes {[list(view.shape) for view in scores]}, expected 2 or more of one shape")
    if not 1 <= assigned <= len(scores):
        raise ValueError(f"assigned: found {assigned}, expected 1 to {len(scores)}, the number of views")
    prototypes = scores[0].shape[1]
    queues = [] if queue_scores is None else [list(queue.shape) for queue in queue_scores]
    if queue_scores is not None and (len(queues) != assigned or any(queue[1:] != [prototypes] for queue in queues)):
        raise ValueError(f"queue_scores: found shapes {queues}, expected {assigned} of [rows, {prototypes}]")


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name}: found {value}, expected more than 0")
