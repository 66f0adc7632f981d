"""Training on several devices or hosts with `tf.distribute`."""
