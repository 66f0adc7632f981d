"""A pytest plugin that puts masked layers where Keras keeps its own."""

import keras.src.layers

from tf_lottery.layers import CATALOGUE

for plain, masked in CATALOGUE.items():
    if hasattr(keras.src.layers, plain.__name__):
        setattr(keras.src.layers, plain.__name__, masked)
