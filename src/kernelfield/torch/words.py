"""The error of a network that cannot be read."""

from __future__ import annotations


class Unreadable(ValueError):
    """A network, or its optimizer, that has no description here. Its text is one sentence, which says why."""
