"""Workflows: signatures, and what can be made of them."""

from umbel.canvas.chains import chain
from umbel.canvas.chords import chord
from umbel.canvas.groups import group
from umbel.canvas.maps import chunks, xmap, xstarmap
from umbel.canvas.signatures import Signature, maybe_signature, signature, subtask
from umbel.canvas.stamping import StampingVisitor

maybe_subtask = maybe_signature

__all__ = [
    "Signature", "StampingVisitor", "chain", "chord", "chunks", "group", "maybe_signature", "maybe_subtask", "signature", "subtask",
    "xmap", "xstarmap",
]  # fmt: skip
