"""Vickrey-Clarke-Groves prices for the slots of one request: what truthful bidders would pay, beside our GSP."""

from collections.abc import Sequence


def vcg_prices(bid_N: Sequence[int], weight_S: Sequence[int], reserve: int = 0) -> list[tuple[int, int]]:
    """(bidder, micros per impression) of each sold slot, best first: each pays what its presence costs the others.

    A reference for simulation and tests: plain Python, one request. Sum over k from s of (w_k - w_k+1) b_k+1, over w_s,
    rounded up to a micro (Vickrey 1961; for slots: Edelman, Ostrovsky and Schwarz 2007). The seller's reserve counts
    as a bidder for every slot. With one slot, or slots of one weight, it is the highest bid that got none.

    >>> vcg_prices([900, 500, 300], [10, 5], reserve=100)
    [(0, 400), (1, 300)]

    Args:
        bid_N: micros per impression at most; below the reserve it is no bid. Equal bids stand in order of the list.
        weight_S: how likely each slot is seen, in any whole unit, not growing.
        reserve: micros per impression at least.

    Raises:
        ValueError: weights that grow or are not above 0.
    """
    if any(weight <= 0 for weight in weight_S) or sorted(weight_S, reverse=True) != list(weight_S):
        raise ValueError(f"weight_S = {list(weight_S)}: above 0 and not growing")
    order = sorted((n for n, bid in enumerate(bid_N) if bid >= reserve), key=lambda n: -bid_N[n])
    ranked = [bid_N[n] for n in order] + [reserve] * (len(weight_S) + 1)
    gaps = [weight - below for weight, below in zip(weight_S, [*weight_S[1:], 0], strict=True)]
    prices = []
    for s, bidder in enumerate(order[: len(weight_S)]):
        harm = sum(gaps[k] * ranked[k + 1] for k in range(s, len(weight_S)))
        prices.append((bidder, -(-harm // weight_S[s])))
    return prices
