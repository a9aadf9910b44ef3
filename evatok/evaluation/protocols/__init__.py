"""Named protocols of evaluation: everything besides the tokenizer that decides a number, frozen and hashed.

A protocol that changes gets a new version; the hash over all its fields goes into the record of a measurement, so
that two values stand side by side only where the same was measured. What a paper leaves open is filled by a choice
of our own and listed in `unknown`.

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
