"""Advantages of whole responses, compared within groups. `P` prompts, `K` responses to each, all from one policy."""

from __future__ import annotations

from torch import Tensor


def rloo(returns: Tensor) -> Tensor:
    """Less the mean of the other responses to the same prompt (RLOO, arXiv:2402.14740): (P, K) -> (P, K), K >= 2.

    What is taken off does not depend on the response, so the gradient is unbiased.
    """
    count = returns.shape[1]
    return (returns - returns.mean(1, keepdim=True)) * (count / (count - 1))


def group_mean(returns: Tensor) -> Tensor:
    """Less the group's mean (Dr. GRPO, arXiv:2503.20783): RLOO's times (K - 1) / K: (P, K) -> (P, K)."""
    return returns - returns.mean(1, keepdim=True)


def grpo(returns: Tensor, floor: float = 1e-4) -> Tensor:
    """Less the group's mean, over its standard deviation (GRPO, arXiv:2402.03300): (P, K) -> (P, K), K >= 2.

    Groups in which all is nearly equal count as much as those in which much is at stake; and a price between reward and
    cost would be another one in each group, so under constraints only the mean is taken off (arXiv:2602.05863).
    """
    return group_mean(returns) / (returns.std(1, keepdim=True) + floor)


def global_mean(returns: Tensor, mean: float | None = None) -> Tensor:
    """Less the mean of all (REINFORCE++, arXiv:2501.03262): (P, K) -> (P, K); `mean` of all processes, if there are."""
    return returns - (returns.mean() if mean is None else mean)


def reinforce_plus_plus(returns: Tensor, by_group: bool = False) -> Tensor:
    """Less the mean of all, or of the group, over the standard deviation of what is left: (P, K) -> (P, K)."""
    centred = group_mean(returns) if by_group else global_mean(returns)
    return centred / centred.square().mean().sqrt().clamp(min=1e-8)


def pessimistic_cost(costs: Tensor, kappa: float, mean: float, std: float) -> Tensor:
    """What a response contributes to the gradient of mean + kappa x std over prompts: (P, K) -> (P, K).

    Eq. 5 of arXiv:2506.08266 for one response a prompt, c + kappa (c^2 - 2 c m) / (2 s); here the unit is the prompt,
    X = mean of its K costs, and X^2 gives response j the part that depends on it, (2 c_j S_j + c_j^2) / K^2 with S_j
    the sum of the others'. The gradient of m + kappa s is the mean over responses of this times grad log pi.

    Args:
        costs: of responses.
        kappa: how many standard deviations.
        mean: of the prompts' mean costs.
        std: of the same, above 0.
    """
    count = costs.shape[1]
    others = costs.sum(1, keepdim=True) - costs
    return costs + kappa * ((2 * costs * others + costs.square()) / count - 2 * costs * mean) / (2 * std)


def pessimistic_rloo(costs: Tensor, kappa: float, mean: float, std: float) -> Tensor:
    """`pessimistic_cost` less what it would be on average for the other responses in its place: (P, K) -> (P, K).

    The sum of the others is held while a response is compared with them, so what is taken off does not depend on it;
    RLOO of `pessimistic_cost` itself would be biased, since each response is a part of the others' sums.
    """
    count = costs.shape[1]
    others = costs.sum(1, keepdim=True) - costs
    linear, square = rloo(costs), rloo(costs.square())
    return linear + kappa * ((2 * others * linear + square) / count - 2 * mean * linear) / (2 * std)
