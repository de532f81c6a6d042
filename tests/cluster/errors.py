"""What can go wrong while a cluster is brought up or taken down."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster cannot be brought to the wanted state; the message says what a person can do about it."""
