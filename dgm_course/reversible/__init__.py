"""Reversible networks: what a layer was given is rebuilt from what it made of it."""

from dgm_course.reversible.blocks import ReversibleBlock
from dgm_course.reversible.irevnet import IRevNet
from dgm_course.reversible.memory import saved_bytes
from dgm_course.reversible.rounding import drift, lipschitz_block
from dgm_course.reversible.sequences import ResidualSequence, ReversibleSequence

__all__ = [
    "IRevNet",
    "ResidualSequence",
    "ReversibleBlock",
    "ReversibleSequence",
    "drift",
    "lipschitz_block",
    "saved_bytes",
]
