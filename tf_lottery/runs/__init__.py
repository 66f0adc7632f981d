"""Runs: what is trained, by whom, in which order, and where it is kept."""
