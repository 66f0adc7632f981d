"""Whether two trainings are the same."""

import re
import warnings

import numpy as np

from tf_lottery import masking
from tf_lottery.ticket_search import TicketSearch

EPOCHS = 3


def searched(row):
    """Returns a search of one level, trained as a row says."""
    search = TicketSearch(row.model(), levels=0)
    search.compile(**row.compile())
    search.fit(
        **row.data(),
        batch_size=row.batch_size,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
    )
    return search


def fitted(row, ticket):
    """Returns a model that Keras trained from where a ticket starts."""
    model = masking.strip_masks(ticket.build())
    model.compile(**row.compile())
    given = row.data()
    size = {} if row.batch_size is None else {"batch_size": row.batch_size}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = model.fit(
            **given, **size, epochs=EPOCHS, shuffle=False, verbose=0
        )
    return model, history.history


def named(point):
    """Returns a point of a learning curve under Keras' names."""
    return {
        # Keras numbers metrics without a name of their own: auc, auc_1.
        re.sub(r"_\d+$", "", name.replace("validation_", "val_")): value
        for name, value in point.items()
        if name != "step"
    }


def require_same(row):
    """Raises unless level 0 of a search is what Keras trains."""
    search = searched(row)
    ticket = search.tickets[0]
    model, history = fitted(row, ticket)
    (record,) = search.records
    epochs = [
        {column: record.curve[column][i] for column in record.curve}
        for i in range(EPOCHS)
    ]
    for i, epoch in enumerate(epochs):
        ours, theirs = named(epoch), named(history)
        assert ours.keys() - theirs.keys() <= {"accuracy", "val_accuracy"}
        for metric, values in theirs.items():
            np.testing.assert_allclose(
                ours[metric],
                np.array(values[i]),
                rtol=row.tolerance,
                atol=row.tolerance,
                err_msg=f"{metric} of epoch {i}",
            )
    theirs = masking.variables_by_path(model)
    for path, value in ticket.trained.items():
        if theirs[path].name == "seed_generator_state":
            continue
        np.testing.assert_allclose(
            value,
            theirs[path].numpy(),
            rtol=10 * row.tolerance,
            atol=10 * row.tolerance,
            err_msg=path,
        )
