"""Figures of a run show the measured values; equal runs have equal figures."""

import dataclasses
import itertools
import re
import struct
import xml.etree.ElementTree

import numpy as np
import pytest
import studies

from tf_lottery.analysis import catch_up, figures, published, ticket_structure
from tf_lottery.analysis.figures import InterpolatedErrors, curves, style

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
    return ticket_structure.TicketStructure(0, initial, trained, masks)


@pytest.mark.slow
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


@pytest.mark.slow
def test_equal_runs_draw_equal_bytes():
    networks = run(2, 2, "reinit")
    drawn = [figures.draw(networks, tickets=tickets()) for _ in range(2)]
    assert drawn[0] == drawn[1]


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
    """Returns the arguments of calls of an axes method, by label."""
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
    # One curve alone stays on its densities.
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

    column = "validation_accuracy"
    evaluations = [
        fixed_steps._last_evaluation(network, column, part / 3)
        for part in (1, 2, 3)
    ]
    assert evaluations == [(300, 0.3), (600, 0.6), (1_000, 1.0)]


def test_levels_nearest_to_the_papers_densities_are_chosen_once():
    known = {0: 1.0, 1: 0.6, 2: 0.36, 3: 0.22}
    assert style.nearest(known, (1.0, 0.513, 0.211, 0.07)) == [0, 1, 3]


def test_tickets_are_taken_apart_as_by_hand():
    initial = np.array([[1.0, -2.0], [3.0, -4.0]])
    trained = np.array([[1.5, -1.0], [-3.0, -9.0]])
    first = np.array([[True, True], [True, False]])  # a weight never there
    second = np.array([[False, True], [True, False]])
    taken = ticket_structure.TicketStructure(
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
    assert ticket_structure.incoming(mask) == pytest.approx(
        np.array([1, 1, 1, 10]) / 18
    )
    assert ticket_structure.outgoing(mask) == pytest.approx(
        np.array([4, 9]) / 36
    )


def test_layers_are_in_the_order_of_their_numbers():
    taken = tickets(layers=12)
    assert taken.layers[:3] == [f"dense_{n}/kernel" for n in (0, 1, 2)]
    assert taken.layers[-1] == "dense_11/kernel"


def test_of_many_layers_first_last_and_some_between_are_drawn():
    drawn = figures.draw(run(), tickets=tickets(layers=12))
    assert "6 of its 12 layers" in drawn["initial_weights"].caption
    assert "3 of its 12 layers" in drawn["connections"].caption


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((1, 1), "One replicate (n = 1)."),
        ((3, 3), "Means over n = 3 replicates, "),
        ((4, 2), "Means over n = 2 to 4 replicates, "),
    ],
)
def test_every_caption_says_how_many_replicates_it_is_of(counts, said):
    networks = [
        n
        for n in studies.with_losses(run(max(counts), 2, "reinit"))
        if n.replicate < counts[n.level > 1]
    ]
    paths = [
        InterpolatedErrors(
            n.level,
            n.row["density"],
            [0, 0.5, 1],
            {"test": [0, 0.1, 0]},
            {"test": 0.1},
        )
        for n in networks
        if n.variant == "ticket"
    ]
    drawn = figures.draw(networks, tickets=tickets(), paths=paths)
    assert set(drawn) == {
        *FROM_RECORDS,
        *FROM_WEIGHTS,
        "catch_up_step",
        "connectivity",
    }
    for name, drawing in drawn.items():
        expected = "of replicate 0 alone (n = 1)"
        assert (expected if name in FROM_WEIGHTS else said) in drawing.caption


@pytest.mark.slow
def test_every_figure_says_in_words_what_there_is_to_see():
    drawn = figures.draw(
        studies.with_losses(run(2, 2, "reinit")), tickets=tickets()
    )
    words = {name: drawing.alt for name, drawing in drawn.items()}
    assert len(set(words.values())) == len(words)
    for alt in words.values():
        assert alt.endswith(".")
        assert "chart" in alt or "Distribution" in alt
        assert len(alt) > 60
    assert re.search(r"ticket: \d\d\.\d\d % at 100 %, ", words["accuracy"])
    assert "; reinit: " in words["accuracy"]
    many = figures.compare(sweep(8, str))["accuracy"].alt
    assert many.endswith("and 2 more curves.")


@pytest.mark.parametrize(
    "names",
    [
        ["ticket"],
        ["ticket", "a"],
        ["ticket", "a", "b"],
        ["ticket", *"abcdefgh"],
        ["rate=0.1", "rate=0.2", "rate=0.4"],
    ],
)
def test_curves_are_moved_apart_and_levels_stay_apart(names):
    percents = [100 * 0.8**level for level in range(8)]
    factors = curves.dodge({name: percents for name in names})
    assert list(factors) == names
    logs = np.log(list(factors.values()))
    assert sorted(logs) == pytest.approx(sorted(-logs))
    if len(names) % 2 and "ticket" in names:
        assert factors["ticket"] == 1
    if len(names) > 1:
        nearest = np.diff(np.sort(logs)).min()
        assert nearest > 0.01
        # The last of a level is nearer to its own than to the next one's.
        assert np.ptp(logs) + nearest < np.log(1 / 0.8) / 1.5
    else:
        assert logs.tolist() == [0]


def test_a_caption_says_so_where_points_are_moved():
    for controls, moved in (((), False), (("reinit",), True)):
        drawn = figures.draw(run(2, 2, *controls))
        for name in ("accuracy", "fixed_steps"):
            assert (style.APART in drawn[name].caption) == moved


def test_runs_of_a_sweep_have_a_dense_network_each(monkeypatch):
    seen = watch(monkeypatch, "errorbar", lambda args, _: args[0])
    figures.compare(sweep(3, str))
    assert len({x[0] for x in seen.values()}) == 3
    assert seen["1"][0] == pytest.approx(100)


def timed(replicate, level, variant, *losses):
    curve = {
        "step": [100, 200, 300, 400],
        "validation_loss": losses,
    }
    row = {"density": 0.5**level}
    return studies.Network(replicate, level, variant, row, curve=curve)


CAUGHT_UP = [
    timed(0, 0, "ticket", 0.9, 0.5, 0.4, 0.6),  # 300
    timed(1, 0, "ticket", 0.9, 0.2, 0.4, 0.6),  # 200
    timed(0, 1, "ticket", 0.4, 0.1, 0.1, 0.1),  # 100
    timed(1, 1, "ticket", 0.4, 0.3, 0.3, 0.2),  # 400
    timed(0, 1, "reinit", 0.9, 0.9, 0.4, 0.9),  # 300
    timed(1, 1, "reinit", 0.9, 0.9, 0.9, 0.3),  # never: 400
]


def test_catch_up_steps_are_those_of_the_same_replicates_dense_network(
    monkeypatch,
):
    seen = watch(monkeypatch, "errorbar", lambda a, look: (a[1], look["yerr"]))
    hollow = []
    method = style.Axes.plot

    def plot(self, *args, **look):
        if look.get("markerfacecolor") == "white":
            hollow.append(list(args[1]))
        return method(self, *args, **look)

    monkeypatch.setattr(style.Axes, "plot", plot)
    drawing = figures.draw(CAUGHT_UP)["catch_up_step"]
    mean, (low, high) = seen["ticket"]
    assert mean.tolist() == [250, 250]
    assert low.tolist() == [50, 150]
    assert high.tolist() == [50, 150]
    assert seen["reinit"][0].tolist() == [250, 350]
    assert hollow == [[350]]
    assert "Hollow points: at least one network never" in drawing.caption
    assert "reinit: 250 steps at 100 %, 350 steps at 50.0 %" in drawing.alt
    caught = [n for n in CAUGHT_UP if (n.replicate, n.variant) != (1, "reinit")]
    assert "Hollow" not in figures.draw(caught)["catch_up_step"].caption


def test_a_control_catches_up_when_its_draws_do_on_average(monkeypatch):
    seen = watch(monkeypatch, "errorbar", lambda args, _: args[1])
    draws = [
        timed(0, 1, "reinit", 0.3, 0.9, 0.9, 0.9),  # 100
        timed(0, 1, "reinit.2", 0.9, 0.9, 0.9, 0.1),  # 400
    ]
    figures.draw([CAUGHT_UP[0], *draws])
    # Their mean curve catches up at no step that either of them does.
    mean = timed(0, 1, "reinit", 0.6, 0.9, 0.9, 0.5)
    assert catch_up.catch_up_step(mean, CAUGHT_UP[0]) is None
    assert seen["reinit"].tolist() == [300, 250]


def test_a_run_of_a_sweep_catches_up_with_its_own_dense_network(monkeypatch):
    seen = watch(monkeypatch, "errorbar", lambda args, _: args[1])
    easy = [
        timed(0, 0, "rate=0.1", 9, 8, 8, 9),
        timed(0, 1, "rate=0.1", *4 * [8]),
    ]
    hard = [
        timed(0, 0, "rate=0.2", 9, 8, 7, 6),
        timed(0, 1, "rate=0.2", 9, 9, 6, 9),
    ]
    figures.compare([*easy, *hard])
    assert seen["rate=0.1"].tolist() == [200, 100]
    assert seen["rate=0.2"].tolist() == [400, 300]


def sweep(count, label):
    return [
        dataclasses.replace(network, variant=label(number))
        for number in range(count)
        for network in studies.study(np.random.default_rng(0), 2, levels=2)
    ]


DRAWN = ("density", "early_stop_step")
LABELS = {
    "short": lambda n: f"rate=0.{n:02}",
    "long": lambda n: (
        f"rate=0.{n:02},criterion=magnitude,allocation=global,"
        "rewind=500it,optimizer=adam"
    ),
    "without a comma": lambda n: f"theta_0={n:02}_" + 90 * "w",
}


@pytest.fixture
def finished(monkeypatch):
    """The matplotlib figures that were finished."""
    kept, finish = [], style.finish

    def keep(figure, *args):
        kept.append(figure)
        return finish(figure, *args)

    monkeypatch.setattr(style, "finish", keep)
    return kept


@pytest.mark.parametrize("count", [2, 4, 8, 20])
@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_a_legend_names_every_run_within_the_figure(finished, count, label):
    networks = [
        dataclasses.replace(n, row={c: n.row[c] for c in DRAWN})
        for n in sweep(count, label)
    ]
    drawn = figures.compare(networks)
    assert len(drawn) == 1
    for figure, drawing in zip(finished, drawn.values(), strict=True):
        (legend,) = figure.legends
        texts = legend.get_texts()
        shown = ["".join(text.get_text().split()) for text in texts]
        assert shown == [label(number) for number in range(count)]
        edges = figure.bbox.padded(1)
        boxes = [text.get_window_extent() for text in texts]
        assert all(edges.x0 <= box.x0 and box.x1 <= edges.x1 for box in boxes)
        assert all(edges.y0 <= box.y0 and box.y1 <= edges.y1 for box in boxes)
        assert not any(
            one.overlaps(other)
            for one, other in itertools.combinations(boxes, 2)
        )
        # The legend takes nothing from the curves.
        (axes,) = figure.axes
        assert axes.get_window_extent().height > 2.3 * figure.dpi
        names = re.findall(r"<!-- (.*?) -->", drawing.svg.decode())
        whole = "".join("".join(names).split())
        assert all(label(number) in whole for number in range(count))


@pytest.mark.slow
def test_panels_lie_below_each_other_on_a_narrow_screen(finished):
    drawn = figures.draw(run(2, 2, "reinit"), tickets=tickets())
    stacked = {name: d for name, d in drawn.items() if d.narrow}
    assert set(stacked) == {
        *FROM_WEIGHTS - {"layer_densities"},
        "learning_curves",
        "fixed_steps",
    }
    for drawing in stacked.values():
        width, height = struct.unpack(">II", drawing.narrow[16:24])
        assert width == 3.4 * 160
        assert height > width
    for figure in finished:
        panels = [axes.get_position() for axes in figure.axes]
        assert all(
            upper.y0 > lower.y1 for upper, lower in itertools.pairwise(panels)
        )


def regression(count=2):
    """A run that is decided by a loss and has no accuracy."""
    networks = []
    for network in studies.with_losses(run(count, 3, "reinit")):
        row = {
            "deciding_metric": "loss",
            "validation_loss_at_early_stop": 0.25,
            "test_loss_at_early_stop": 0.5,
            **{k: v for k, v in network.row.items() if "accuracy" not in k},
        }
        curve = {k: v for k, v in network.curve.items() if "accuracy" not in k}
        networks.append(dataclasses.replace(network, row=row, curve=curve))
    return networks


def test_a_run_decided_by_a_loss_shows_losses():
    drawn = figures.draw(regression())
    assert set(drawn) == {
        "early_stop_step",
        "catch_up_step",
        "loss",
        "validation_loss",
        "learning_curves",
        "fixed_steps",
    }
    for name, drawing in drawn.items():
        assert "percent" not in drawing.caption
        if "step" not in name:
            assert "oss " in drawing.caption
    assert "ticket: 0.5 at 100 %" in drawn["loss"].alt
    swept = [
        dataclasses.replace(n, variant="rate=0.1")
        for n in regression()
        if n.variant == "ticket"
    ]
    assert {"loss", "validation_loss"} < set(figures.compare(swept))


def test_an_accuracy_is_found_by_its_own_name():
    networks = [
        dataclasses.replace(
            n,
            row={
                "deciding_metric": "head_accuracy",
                **{
                    k.replace("accuracy", "head_accuracy"): v
                    for k, v in n.row.items()
                },
            },
            curve={
                k.replace("accuracy", "head_accuracy"): v
                for k, v in n.curve.items()
            },
        )
        for n in run()
    ]
    drawn = figures.draw(networks)
    assert set(drawn) == FROM_RECORDS
    assert "Test head accuracy" in drawn["accuracy"].caption


def test_ticks_of_steps_are_whole_steps(finished):
    row = {"density": 1.0, "early_stop_step": 200}
    figures.draw([studies.Network(0, 0, "ticket", row)])
    ticks = finished[0].axes[0].get_yticks()
    assert len(ticks) > 2
    assert all(tick == round(tick) for tick in ticks)
