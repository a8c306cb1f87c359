"""Measured numbers of a bundle: one file that the measuring commands write, and the texts that are made from it."""

from recipes.evidence.schema import (
    FILE,
    Evidence,
    Head,
    MeasuredOn,
    Measurement,
    Part,
    evidence_file,
    read_evidence,
    update,
)

__all__ = [
    "FILE",
    "Evidence",
    "Head",
    "MeasuredOn",
    "Measurement",
    "Part",
    "evidence_file",
    "read_evidence",
    "update",
]
