"""Measurements against peers. Nothing in tenth/ imports this; peers install as the `bench` extra."""
