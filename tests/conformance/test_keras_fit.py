"""Level 0 of a search is what `keras.Model.fit` trains on the same batches."""

import pytest
from keras_fit_rows import ROWS
from same_training import require_same


# Keras says so where an output has no loss.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("name", ROWS)
def test_level_0_is_what_keras_trains(name):
    require_same(ROWS[name])
