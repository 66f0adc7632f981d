"""Backends: what computes the training steps of one or several networks."""
