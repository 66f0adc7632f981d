"""Runs: scheduling, executors and storage of trained networks."""
