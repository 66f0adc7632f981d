"""Code without TensorFlow: masks, durations, seeds, registries, files."""
