"""The optimisers by name, and the parameters in groups.

Torch's own, and LARS: You et al., "Large Batch Training of Convolutional Networks", 2017
(https://arxiv.org/abs/1708.03888), in the form that SimCLR and Barlow Twins use: biases and norms are neither decayed nor
scaled.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from medssl.config import Shared
from medssl.parallel import full
from medssl.schedules import Pace

UNDECAYED = ("position_embeddings", "mask_token")  # of more than one axis, and yet not weights
Groups = list[dict[str, Any]]


class LARS(Optimizer):
    """SGD with momentum whose step for each weight tensor is `trust` times the tensor's norm before the rate counts.

    u = g + decay * w, m = momentum * m + trust * |w| / |u| * u, w = w - lr * m; a tensor of one axis, or one whose w or u
    is 0, takes m = momentum * m + u.
    """

    def __init__(
        self, params: Groups, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 0.001
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step; a closure is not supported."""
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                update = p.grad.add(p, alpha=group["weight_decay"])
                if p.ndim > 1:
                    wanted, there = group["trust"] * p.norm(), update.norm()
                    update = update * torch.where((wanted > 0) & (there > 0), wanted / there, 1.0)
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                p.sub_(state["momentum"].mul_(group["momentum"]).add_(update), alpha=group["lr"])


def optimiser_of(settings: Shared, groups: Groups) -> Optimizer:
    """Build the optimiser of the settings over parameter groups; Adam decays by the gradient, AdamW by the weight itself."""
    s = settings
    if s.optimiser == "sgd":  # not fused, which fails where a parameter gets its first gradient later than the others
        return SGD(groups, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay)
    if s.optimiser == "lars":
        return LARS(groups, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay)
    kind = AdamW if s.optimiser == "adamw" else Adam
    return kind(groups, lr=s.lr, betas=(s.momentum, s.beta2), weight_decay=s.weight_decay, fused=True)


def parameter_groups(parts: Iterable[tuple[nn.Module, float]]) -> Groups:
    """Group the parameters of modules, each with a `scale` of its rate; biases, norms and positions do not decay.

    A module that holds an earlier one gives what the earlier ones left.
    """
    groups, seen = Groups(), set[int]()
    for module, scale in parts:
        fresh = [(name, p) for name, p in module.named_parameters() if p.requires_grad and id(p) not in seen]
        seen |= {id(p) for _, p in fresh}
        decayed = [p for name, p in fresh if p.ndim > 1 and not name.endswith(UNDECAYED)]
        rest = [p for name, p in fresh if p.ndim <= 1 or name.endswith(UNDECAYED)]
        groups += [{"params": decayed, "scale": scale}, {"params": rest, "scale": scale, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], most: float | None) -> float:
    """Scale gradients down to a norm of `most`; gives the norm that they had. Without `most` they are only read."""
    there = [p for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in there if p.grad is not None])
    if most is not None:
        nn.utils.clip_grads_with_norm_(there, most, norm)
    return float(full(norm))


def set_pace(optimiser: Optimizer, pace: Pace) -> None:
    """Give every group its rate, and all of them their momentum, which is Adam's first beta."""
    for group in optimiser.param_groups:
        group["lr"] = pace.rate * group["scale"]
        if "betas" in group:
            group["betas"] = (pace.momentum, group["betas"][1])
        else:
            group["momentum"] = pace.momentum
