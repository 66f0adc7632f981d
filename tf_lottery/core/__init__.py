"""Values that need no TensorFlow: masks, durations, seeds, names, files."""
