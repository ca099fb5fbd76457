"""Learning rules: what moves the weights below the readout in place of gradients."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from kernelfield.common.settings import Spec, suggestion


class FeedbackAlignment(Spec):
    """Feedback alignment: error signals go down through random matrices, which rest, in place of W^T.

    Those of each layer are alignment W(0)^T + sqrt(1 - alignment^2) W'^T, with W' drawn like W(0); so is what the
    readout sends down. Layers without weights send down what they do in gradient descent.

    Args:
        alignment: correlation of the matrices with the initial weights, 0 to 1.
        kind: the name of the rule in files.

    Source: Lillicrap et al., Nat. Commun. 7 (2016) 13276; at infinite width arXiv:2210.02157.
    """

    kind: Literal["feedback_alignment"] = "feedback_alignment"
    alignment: float = Field(default=0.0, ge=0, le=1)


class DirectFeedbackAlignment(Spec):
    """Direct feedback alignment: the error signal reaches the layer below every weight layer at once.

    What goes down there is sum_c Delta_c v_c in place of W^T g, with one v ~ N(0, 1) for each neuron, site and output.

    Args:
        kind: the name of the rule in files.

    Source: Nokland, arXiv:1609.01596; at infinite width arXiv:2210.02157.
    """

    kind: Literal["direct_feedback_alignment"] = "direct_feedback_alignment"


class Hebbian(Spec):
    """Error-modulated Hebbian learning: |Delta|^2 phi(h) stands for the gradients at every activation.

    Weights learn by what they feed, up to the next weights: sum_mu |Delta_mu|^2 phi(h_mu) phi_mu^T of both sides.

    Args:
        kind: the name of the rule in files.

    Source: arXiv:2210.02157.
    """

    kind: Literal["hebbian"] = "hebbian"


LearningRule = FeedbackAlignment | DirectFeedbackAlignment | Hebbian
KINDS = {rule.model_fields["kind"].default: rule for rule in (FeedbackAlignment, DirectFeedbackAlignment, Hebbian)}


def learning_rule(values: dict[str, Any]) -> LearningRule:
    """Returns the rule that a mapping of its kind and arguments describes, as files have it."""
    kind = values.get("kind")
    if kind not in KINDS:
        raise ValueError(f"rule kind '{kind}' is unknown{suggestion(str(kind), list(KINDS))}")
    return KINDS[kind](**values)
