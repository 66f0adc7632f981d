"""Figures of a run: drawn of what was measured, alike for equal runs."""

import dataclasses
import xml.etree.ElementTree

import numpy as np
import pytest
import studies

from tf_lottery.analysis import anatomy, figures, published
from tf_lottery.analysis.figures import style

FROM_RECORDS = {
    "early_stop_step",
    "accuracy",
    "accuracy_at_end",
    "train_accuracy",
    "validation_accuracy",
    "learning_curves",
    "fixed_steps",
}
FROM_WEIGHTS = {
    "layer_densities",
    "initial_weights",
    "distance_moved",
    "connections",
}


def run(count=2, levels=2, *controls):
    return studies.with_controls(
        np.random.default_rng(0), count, *controls, levels=levels
    )


def tickets(levels=2, layers=3):
    draw = np.random.default_rng(0)
    initial = {
        f"dense_{layer}/kernel": draw.normal(size=(8, 6))
        for layer in range(layers)
    }
    trained = {p: w + draw.normal(size=w.shape) for p, w in initial.items()}
    order = {p: draw.random(w.shape) for p, w in initial.items()}
    masks = {
        level: {p: order[p] < 0.5**level for p in initial}
        for level in range(levels + 1)
    }
    return anatomy.Anatomy(0, initial, trained, masks)


def test_every_figure_is_png_and_svg_and_says_what_it_shows():
    drawn = figures.draw(run(2, 2, "reinit"), tickets=tickets())
    assert set(drawn) == FROM_RECORDS | FROM_WEIGHTS
    for drawing in drawn.values():
        assert drawing.png.startswith(b"\x89PNG")
        root = xml.etree.ElementTree.fromstring(drawing.svg)
        assert root.tag.endswith("svg")
        assert drawing.caption.endswith(".")
    files = figures.files(drawn)
    assert files["accuracy.png"] == drawn["accuracy"].png
    assert len(files) == 2 * len(drawn)


def test_only_what_was_measured_is_drawn():
    bare = studies.Network(0, 0, "ticket", {"density": 1.0})
    assert figures.draw([bare]) == {}
    row = {"density": 1.0, "test_accuracy": 0.9}
    bare = dataclasses.replace(bare, row=row)
    assert set(figures.draw([bare])) == {"accuracy_at_end"}


def test_a_run_of_the_dense_network_alone_is_drawn():
    assert set(figures.draw(run(2, 0))) == FROM_RECORDS


def test_replicates_of_a_run_under_way_have_unequal_levels():
    networks = [n for n in run(3, 4, "reinit") if n.level <= 4 - n.replicate]
    assert set(figures.draw(networks)) == FROM_RECORDS


def test_densities_far_below_a_thousandth_are_drawn():
    networks = run()
    networks[-1].row["density"] = 1e-6
    assert "accuracy" in figures.draw(networks)


def test_equal_runs_draw_equal_bytes():
    networks = run(2, 2, "reinit")
    drawn = [figures.draw(networks, tickets=tickets()) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_marks_lie_on_the_points_of_their_curves():
    networks = run(3, 4, "reinit")
    drawing = figures.draw(networks)["early_stop_step"]
    root = xml.etree.ElementTree.fromstring(drawing.svg)
    assert {mark.curve: mark.name for mark in drawing.marks} == {
        0: "ticket",
        1: "reinit",
    }
    for curve in (0, 1):
        (line,) = root.findall(f".//*[@id='curve-{curve}-0']")
        points = [
            (float(use.get("x")), float(use.get("y")))
            for use in line.iter("{http://www.w3.org/2000/svg}use")
        ]
        own = [(m.x, m.y) for m in drawing.marks if m.curve == curve]
        assert len(own) == 5
        assert np.array(own) == pytest.approx(np.array(points), abs=0.06)
    stops = [n.row["early_stop_step"] for n in networks if n.level == 0]
    mean, low, high = (f"{f(stops):,.0f}" for f in (np.mean, min, max))
    assert drawing.marks[0].text == (
        "ticket at 100 %",
        f"{mean} steps [{low}–{high}], n = 3",
    )


def test_the_pixels_that_a_ticket_reads_are_pictured():
    taken = dataclasses.replace(
        tickets(), image=(2, 2, 2), reader="dense_0/kernel"
    )
    mask = np.zeros((8, 6), bool)
    mask[0, 0] = mask[1, 1:3] = True  # both channels of the first pixel
    mask[6, :] = True  # one of the last
    taken = dataclasses.replace(
        taken, masks={**taken.masks, 1: {"dense_0/kernel": mask}}
    )
    assert taken.readers(1).tolist() == [[3, 0], [0, 6]]
    drawn = figures.draw(
        run(),
        tickets=dataclasses.replace(
            tickets(), image=(2, 2, 2), reader="dense_0/kernel"
        ),
    )
    assert set(drawn) == FROM_RECORDS | FROM_WEIGHTS | {"pixels"}
    assert "weights of dense_0 read each pixel" in drawn["pixels"].caption


def watch(monkeypatch, name, key):
    """Returns what an axes method is called with, by label."""
    seen, method = {}, getattr(style.Axes, name)

    def watched(self, *args, **look):
        if look.get("label"):
            seen[look["label"]] = key(args, look)
        return method(self, *args, **look)

    monkeypatch.setattr(style.Axes, name, watched)
    return seen


def test_every_control_is_drawn_and_no_two_look_alike(monkeypatch):
    def look(args, look):
        return look["color"], look["marker"], look["linestyle"]

    looks = watch(monkeypatch, "errorbar", look)
    names = ["ticket", *"abcdefghij"]
    figures.draw(run(2, 1, *names[1:]))
    assert list(looks) == names
    assert len(set(looks.values())) == len(names)


def test_curves_are_means_and_bars_from_lowest_to_highest(monkeypatch):
    seen = watch(monkeypatch, "errorbar", lambda a, look: (a, look["yerr"]))
    networks = [
        studies.Network(
            replicate,
            level,
            "ticket",
            {"density": 0.5**level, "early_stop_step": stop},
        )
        for replicate, stops in enumerate(((10, 40), (30, 40), (50, 70)))
        for level, stop in enumerate(stops)
    ]
    figures.draw(networks)
    (x, mean), (low, high) = seen["ticket"]
    assert x.tolist() == [100, 50]
    assert mean.tolist() == [30, 50]
    assert low.tolist() == [20, 10]
    assert high.tolist() == [20, 20]


@pytest.mark.parametrize("is_published", [True, False])
def test_the_papers_bands_are_drawn_as_far_as_the_run_goes(
    monkeypatch, is_published
):
    seen = watch(monkeypatch, "fill_between", lambda args, _: args)
    alone = watch(monkeypatch, "vlines", lambda args, _: args)
    networks = run(2, 3, "shuffle")
    bands = published.bands(studies.LENET)
    drawn = figures.draw(networks, bands, is_published)
    whose = "" if is_published else ", other settings"
    percent, low, high = seen[f"ticket, Frankle & Carbin{whose}"]
    assert percent[0] == pytest.approx(100)
    assert percent[-1] == pytest.approx(51.2)
    assert (low < high).all()
    assert low[0] == pytest.approx(97.75)
    # Shuffled networks were read from 21 % on, before which this run ends.
    assert not any(label.startswith("shuffle,") for label in {**seen, **alone})
    said = "not this run's" in drawn["accuracy"].caption
    assert said != is_published
    assert "Shaded" not in drawn["train_accuracy"].caption


def test_what_was_read_at_one_density_only_is_drawn_there(monkeypatch):
    alone = watch(monkeypatch, "vlines", lambda args, _: args)
    settings = {
        "model": "conv_6",
        "dataset": "cifar10",
        "schedule": "geometric",
    }
    figures.draw(run(2, 12, "reinit"), published.bands(settings), True)
    percent, low, high = alone["reinit, Frankle & Carbin"]
    assert (*percent, *low, *high) == pytest.approx((15, 71.7, 72.3))


def test_draws_of_a_control_are_one_curve_of_their_means(monkeypatch):
    seen = watch(monkeypatch, "errorbar", lambda args, _: args)
    networks = run(2, 1, "reinit")
    figures.draw(networks)
    (_, one), _ = seen.pop("reinit"), seen.clear()
    figures.draw(studies.drawn_again(networks, 3))
    assert set(seen) == {"ticket", "reinit"}
    _, three = seen["reinit"]
    assert three[1] < one[1]


def test_a_figure_has_no_band_of_a_control_that_the_run_lacks(monkeypatch):
    seen = watch(monkeypatch, "fill_between", lambda args, _: args)
    figures.draw(run(2, 12), published.bands(studies.LENET), True)
    assert "ticket, Frankle & Carbin" in seen
    assert not any(label.startswith("shuffle") for label in seen)


def test_accuracy_after_a_third_is_of_the_last_evaluation_by_then():
    steps = list(range(100, 1_001, 100))
    curve = {"step": steps, "validation_accuracy": [s / 1_000 for s in steps]}
    network = dataclasses.replace(run()[0], curve=curve)
    from tf_lottery.analysis.figures import fixed_steps

    found = [fixed_steps._at(network, part / 3) for part in (1, 2, 3)]
    assert found == [(300, 0.3), (600, 0.6), (1_000, 1.0)]


def test_levels_nearest_to_the_papers_densities_are_chosen_once():
    known = {0: 1.0, 1: 0.6, 2: 0.36, 3: 0.22}
    assert style.nearest(known, (1.0, 0.513, 0.211, 0.07)) == [0, 1, 3]


def test_tickets_are_taken_apart_as_by_hand():
    initial = np.array([[1.0, -2.0], [3.0, -4.0]])
    trained = np.array([[1.5, -1.0], [-3.0, -9.0]])
    first = np.array([[True, True], [True, False]])  # a weight never there
    second = np.array([[False, True], [True, False]])
    taken = anatomy.Anatomy(
        0, {"k": initial}, {"k": trained}, {0: {"k": first}, 1: {"k": second}}
    )
    assert taken.density(1) == 0.5
    assert taken.layer_density(0, "k") == 0.75
    assert taken.survivors(1, "k").tolist() == [-2.0, 3.0]
    kept, pruned = taken.sides(1, "k")
    assert kept.tolist() == second.tolist()
    assert pruned.tolist() == [[True, False], [False, False]]
    assert taken.moved("k").tolist() == [[0.5, 1.0], [6.0, 5.0]]
    assert taken.grown("k").tolist() == [[0.5, -1.0], [0.0, 5.0]]


def test_connections_of_a_convolution_are_counted_by_channel():
    mask = np.zeros((3, 3, 2, 4), bool)  # height, width, inputs, outputs
    mask[0, 0, 0, :] = True
    mask[:, :, 1, 3] = True
    assert anatomy.incoming(mask) == pytest.approx(np.array([1, 1, 1, 10]) / 18)
    assert anatomy.outgoing(mask) == pytest.approx(np.array([4, 9]) / 36)


def test_layers_are_in_the_order_of_their_numbers():
    taken = tickets(layers=12)
    assert taken.layers[:3] == [f"dense_{n}/kernel" for n in (0, 1, 2)]
    assert taken.layers[-1] == "dense_11/kernel"


def test_of_many_layers_first_last_and_some_between_are_drawn():
    drawn = figures.draw(run(), tickets=tickets(layers=12))
    assert "6 of its 12 layers" in drawn["initial_weights"].caption
    assert "3 of its 12 layers" in drawn["connections"].caption
