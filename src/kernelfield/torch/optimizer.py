"""What an optimizer of PyTorch does to every tensor: its rate, its weight decay, and the settings that all share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernelfield.torch.words import Unreadable


@dataclass(frozen=True)
class Rule:
    """A training rule: the learning rate, weight decay and eps of every parameter by its `id`, and what they share.

    Args:
        rates: (learning rate, decoupled weight decay, eps) by the identity of a parameter; eps is None by SGD.
        momentum: of SGD.
        betas: of Adam; None by SGD.
    """

    rates: Mapping[int, tuple[float, float, float | None]]
    momentum: float = 0.0
    betas: tuple[float, float] | None = None


def read_optimizer(optimizer: Any) -> Rule:
    """Returns the rule of `torch.optim.SGD`, `Adam` or `AdamW`, also as MuSGD and MuAdam of the package mup make it.

    Raises:
        Unreadable: naming an option that no rule here has.
    """
    names = [each.__name__ for each in type(optimizer).__mro__]
    kind = next((name for name in names if name in ("SGD", "AdamW", "Adam")), None)
    if kind is None:
        raise Unreadable(f"the optimizer must be torch.optim.SGD, Adam or AdamW, got {names[0]}")
    groups = optimizer.param_groups
    for option in ("nesterov", "dampening", "maximize", "amsgrad"):
        if any(group.get(option) for group in groups):
            raise Unreadable(f"{kind} with {option} has no counterpart here: leave it out")
    rates = {}
    for group in groups:
        rate, decay = float(group["lr"]), float(group.get("weight_decay", 0.0))
        if decay and kind == "Adam" and not group.get("decoupled_weight_decay"):
            raise Unreadable("weight_decay of Adam adds to gradients, which has no counterpart here: take AdamW")
        if decay and group.get("momentum"):
            raise Unreadable("weight_decay of SGD with momentum adds to the velocity, which has no counterpart here")
        for parameter in group["params"]:
            rates[id(parameter)] = rate, decay, None if kind == "SGD" else float(group["eps"])
    if kind == "SGD":
        return Rule(rates, momentum=float(_shared(groups, "momentum")))
    first, second = _shared(groups, "betas")
    return Rule(rates, betas=(float(first), float(second)))


def _shared(groups: list[dict[str, Any]], name: str) -> Any:
    """Returns an option of all parameter groups; raises Unreadable if they differ in it."""
    values = {group[name] for group in groups}
    if len(values) > 1:
        raise Unreadable(f"{name} must be the same for all parameter groups, got {sorted(values)}")
    return values.pop()
