"""Ours beside the peers: the same models, data, seeds, threads and epochs, each measured against the same baseline."""
