"""Named evaluation protocols: everything but the tokenizer that determines a value, frozen and hashed.

A protocol that changes gets a new version; the hash over all its fields is part of a measurement's record, so that two
values are compared only if they measure the same. What a paper does not state is our choice, and listed in `unknown`.

    >>> get("embedded-reconstruction").clips
    320
"""

from evatok.evaluation.protocols.catalogue import NETWORKS, PROTOCOLS, comparable, get, why_not_comparable
from evatok.evaluation.protocols.clips import clips_of, decode, square, windows
from evatok.evaluation.protocols.protocol import CHOICES, RESIZES, Protocol, ProtocolError, deviations

__all__ = [
    "CHOICES",
    "NETWORKS",
    "PROTOCOLS",
    "RESIZES",
    "Protocol",
    "ProtocolError",
    "clips_of",
    "comparable",
    "decode",
    "deviations",
    "get",
    "square",
    "why_not_comparable",
    "windows",
]
