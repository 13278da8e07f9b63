"""Circuit breakers: an offer whose launches keep failing is left alone for a while. Pure.

A breaker opens after `breaker_failures` failures in a row, for `breaker_s`. Each further failure doubles the pause,
MAX_DOUBLINGS times at most. A node of the offer that joins closes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from scaling.domain.config import ScalingConfig
from scaling.domain.model import Breaker, Observation

MAX_DOUBLINGS = 4


def updated(
    breakers: Mapping[str, Breaker], observation: Observation, config: ScalingConfig, now: float
) -> Mapping[str, Breaker]:
    """offer -> breaker, after the launches that failed and the nodes that joined since the last decision."""
    if not observation.failed_offers and not observation.joined_offers:
        return breakers
    after = dict(breakers)
    for offer in observation.failed_offers:
        failures = after.get(offer, Breaker(0, 0.0)).failures + 1
        beyond = failures - config.breaker_failures
        until = now + config.breaker_s * 2 ** min(beyond, MAX_DOUBLINGS) if beyond >= 0 else 0.0
        after[offer] = Breaker(failures, until)
    for offer in observation.joined_offers:
        if offer not in observation.failed_offers:
            after.pop(offer, None)
    return after


def longest_pause_s(config: ScalingConfig) -> float:
    """Seconds an offer is left alone at most."""
    return config.breaker_s * 2**MAX_DOUBLINGS
