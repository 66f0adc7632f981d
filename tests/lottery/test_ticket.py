"""Tickets: building models from them, saving and loading them."""

import copy
import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import toy
from sample_tickets import make

from tf_lottery import masking
from tf_lottery.core.masks import Masks
from tf_lottery.core.storage import array_file
from tf_lottery.lottery import ticket_file
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import State


@pytest.fixture(scope="module")
def ticket():
    return make()


def test_a_built_model_is_at_mask_times_theta_k(ticket):
    model = ticket.build()
    for path, variable in masking.variables_by_path(model).items():
        assert np.array_equal(variable.numpy(), ticket.start.weights[path])
    assert masking.get_masks(model) == ticket.masks


@pytest.mark.parametrize("model", [toy.mlp, toy.convnet])
def test_fit_trains_a_built_model_and_keeps_its_zeros(model):
    ticket = make(model())
    built = ticket.build()
    built.compile(keras.optimizers.AdamW(0.01), toy.loss())
    built.fit(*toy.digits(), batch_size=20, epochs=2, verbose=0)
    trained = masking.variables_by_path(built)
    for path, mask in ticket.masks.items():
        kernel = trained[path].numpy()
        assert (kernel[~mask] == 0).all()
        assert (kernel != ticket.start.weights[path]).any()


def test_a_model_given_to_build_stays_as_it_is(ticket):
    model = toy.mlp(seed=5)
    before = [w.numpy() for w in model.weights]
    ticket.build(model)
    after = [w.numpy() for w in model.weights]
    assert all(
        np.array_equal(*pair) for pair in zip(before, after, strict=True)
    )


def test_a_model_that_does_not_fit_is_named_with_shapes(ticket):
    with pytest.raises(ValueError, match="only the|matches no kernel"):
        ticket.build(toy.convnet())
    wider = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten()]
        + [keras.layers.Dense(n) for n in (17, 8, 3)]
    )
    message = (
        r"'dense/kernel' has shape \(36, 16\) in the ticket and \(36, 17\)"
    )
    with pytest.raises(ValueError, match=message):
        ticket.build(wider)


def test_a_name_that_does_not_fit_suggests_that_of_the_other_side(ticket):
    weights = dict(ticket.start.weights)
    weights["dense_2/byas"] = weights.pop("dense_2/bias")
    with pytest.raises(
        ValueError,
        match="only the model has 'dense_2/bias'. Did you mean 'dense_2/byas'",
    ):
        ticket.fill(toy.mlp(), weights)
    model = toy.mlp()
    model.layers[-1].name = "densely"
    with pytest.raises(
        ValueError,
        match="only the ticket has 'dense_2/bias'. Did you mean 'densely/bias'",
    ):
        ticket.fill(model)


def test_a_model_that_is_refused_is_not_masked(ticket):
    other = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten()]
        + [keras.layers.Dense(n) for n in (16, 9, 3)]
    )
    more = toy.mlp()
    more.add(keras.layers.Dense(2))
    for model in (other, more):
        with pytest.raises(ValueError, match="The ticket does not fit"):
            ticket.build(model, copy=False)
        assert not masking.is_masked(model)
    model = toy.mlp()
    assert ticket.build(model, copy=False) is model
    assert masking.get_masks(model) == ticket.masks


@pytest.mark.parametrize(
    "architecture",
    ["{", "3", "[]", "{}", '{"class_name": "Mine", "config": {}}'],
)
def test_an_invalid_architecture_is_refused_in_one_line(ticket, architecture):
    broken = dataclasses.replace(ticket, architecture=architecture)
    with pytest.raises(ValueError, match=r"give a model: ticket\.bu") as error:
        broken.build()
    assert "\n" not in str(error.value)
    assert masking.get_masks(broken.build(toy.mlp())) == ticket.masks


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 7])
@pytest.mark.parametrize("model", [toy.convnet, lambda: toy.mlp(dropout=0.2)])
def test_a_file_gives_the_ticket_back(step, model, tmp_path):
    ticket = make(model(), step)
    ticket.save(tmp_path / "t")
    loaded = Ticket.load(tmp_path / "t")
    assert loaded.masks == ticket.masks
    assert loaded.start.digest == ticket.start.digest
    for name in ("level", "variant", "metrics", "provenance", "density"):
        assert getattr(loaded, name) == getattr(ticket, name)
    x, _ = toy.digits()
    assert np.array_equal(loaded.build()(x), ticket.build()(x))


def test_a_file_holds_rewound_weights_and_not_trained_ones(tmp_path):
    ticket = make()
    trained = {p: w + 1 for p, w in ticket.origin.weights.items()}
    dataclasses.replace(ticket, trained=trained).save(tmp_path / "t")
    loaded = Ticket.load(tmp_path / "t")
    assert loaded.trained is None
    assert toy.same(loaded.start.weights, ticket.start.weights)
    with pytest.raises(ValueError, match="holds no trained weights"):
        loaded.model()


def test_equal_tickets_have_equal_bytes(tmp_path):
    make().save(tmp_path / "a")
    make().save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_saving_leaves_the_ticket_as_it_is(ticket, tmp_path):
    before = ticket.origin.digest
    for _ in range(10):
        ticket.save(tmp_path / "t")
    assert ticket.origin.digest == before


def test_only_numpy_is_needed_to_read_a_file(ticket, tmp_path):
    ticket.save(tmp_path / "t")
    code = (
        "import json, sys, numpy as np; f = np.load(sys.argv[1]);"
        "header = json.loads(f['header'].tobytes());"
        "width = header['widths']['dense/kernel'];"
        "bits = np.unpackbits(f['masks/dense/kernel']);"
        "codes = bits[:len(bits) // width * width].reshape(-1, width);"
        "print(header['shapes']['dense/kernel'], (codes == 0).any(1).sum())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "t")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kept = ticket.masks.counts["dense/kernel"]
    assert out == f"[36, 16] {kept}\n"


def load_or_message(path):
    """Returns the ticket, or the one short line that refuses the file."""
    try:
        return Ticket.load(path)
    except ValueError as error:
        line = str(error)
        assert "\n" not in line
        assert len(line) < len(str(path)) + 300
        return line


@pytest.fixture
def small(tmp_path):
    """A ticket of six weights, its file, and the file's bytes."""
    mask = np.array([[1, 0, 1], [0, 1, 1]], bool)
    weights = {"kernel": np.arange(6, dtype="f4").reshape(2, 3)}
    weights["bias"] = np.ones(3, "f4")
    ticket = Ticket(2, Masks({"kernel": mask}), State(0, weights, {}))
    ticket.save(tmp_path / "t")
    return ticket, tmp_path / "t", (tmp_path / "t").read_bytes()


def test_a_file_truncated_anywhere_is_refused(small):
    _, path, content = small
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert "is no ticket file, or a damaged" in load_or_message(path)


def test_flipped_bytes_are_refused_or_harmless(small):
    ticket, path, content = small
    draw, refused = np.random.default_rng(0), 0
    for _ in range(2000):
        data = np.frombuffer(content, "uint8").copy()
        positions = draw.integers(len(data), size=draw.integers(1, 4))
        data[positions] = draw.integers(256, size=len(positions))
        path.write_bytes(data.tobytes())
        result = load_or_message(path)
        if isinstance(result, str):
            refused += 1
        else:  # a date, say
            assert result.masks == ticket.masks
            assert result.start.digest == ticket.start.digest
    assert refused > 1000


def test_a_foreign_file_is_refused(tmp_path):
    np.savez(tmp_path / "foreign.npz", a=np.ones(3))
    (tmp_path / "text").write_text("no ticket")
    for name in ("foreign.npz", "text"):
        with pytest.raises(ValueError, match="is no ticket file"):
            Ticket.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="No ticket file"):
        Ticket.load(tmp_path / "missing")


def test_a_ticket_of_a_later_format_asks_for_an_update(
    ticket, tmp_path, monkeypatch
):
    monkeypatch.setattr("tf_lottery.lottery.ticket_file._FORMAT", 99)
    ticket.save(tmp_path / "t")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format '99'.*Update tf_lottery"):
        Ticket.load(tmp_path / "t")


def forged(ticket, path, monkeypatch, **header):
    """Saves a ticket whose header says otherwise, digests included."""
    encode = array_file.encode
    monkeypatch.setattr(
        array_file,
        "encode",
        lambda kind, honest, arrays: encode(kind, {**honest, **header}, arrays),
    )
    ticket.save(path)
    monkeypatch.undo()
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"shapes": {"dense/kernel": [2, 2]}}, "codes for 4 weights"),
        ({"shapes": {"dense/kernel": [10**6] * 3}}, "masks of 10{18} weights"),
        ({"shapes": {"dense/kernel": [-36, -16]}}, "has a shape of"),
        ({"shapes": {"dense/kernel": [0, 16]}}, "has a shape of"),
        ({"shapes": {"dense/kernel": [36.0, 16]}}, "has a shape of"),
        ({"shapes": {"dense/kernel": [True, 576]}}, "has a shape of"),
        ({"shapes": {"dense/kernel": 576}}, "no list of few numbers"),
        ({"shapes": {"other/kernel": [36, 16]}}, "masks/other/kernel"),
        ({"shapes": {}}, "at least one kernel"),
        ({"shapes": None}, "its shapes is NoneType"),
        ({"widths": {"dense/kernel": 10**9}}, "gaps of 10{9} bits"),
        ({"widths": []}, "list indices"),
        ({"level": "3"}, "its level is no number"),
        ({"architecture": 3}, "its architecture is int"),
        ({"drawn": 3}, "its drawn is int"),
        ({"drawn": {"dense/kernel": 3}}, "not subscriptable"),
        (
            {"drawn": {"dense/kernel": {"initializer": "deserialize"}}},
            "Unknown initializer 'deserialize'",
        ),
    ],
)
def test_a_header_that_lies_is_refused_in_one_line(
    ticket, tmp_path, monkeypatch, header, message
):
    path = forged(ticket, tmp_path / "t", monkeypatch, **header)
    with pytest.raises(ValueError, match=message) as error:
        Ticket.load(path)
    assert "is no ticket file, or a damaged one" in str(error.value)
    assert "\n" not in str(error.value)


JUNK = [
    *(None, True, -1, 3, 10**30, 1e300, float("nan"), "x", "O", "<f8", "|V4"),
    *([], {}, [1], {"a": 1}, [10**6] * 3, "a\nb" * 1000, [[[]]]),
]


def key_paths(value):
    """Yields the keys to every value that some JSON holds."""
    items = []
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (key,)
        yield from ((key, *rest) for rest in key_paths(inner))


@pytest.mark.parametrize("values", [True, False])
def test_any_header_is_refused_in_one_line_or_harmless(
    ticket, tmp_path, values
):
    path = tmp_path / "t"
    ticket.save(path, values=values)
    header, arrays = array_file.read(path, "ticket")
    header.pop("kind")
    loaded = 0
    for keys, junk in itertools.product(key_paths(header), JUNK):
        forged = copy.deepcopy(header)
        inner = forged
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = junk
        array_file.write(path, "ticket", forged, arrays, compress=False)
        result = load_or_message(path)
        if not isinstance(result, str):
            loaded += 1
            assert result.masks.size == ticket.masks.size
            assert toy.same(result.start.weights, ticket.start.weights)
    assert 0 < loaded < 400


def test_small_arrays_cannot_become_many_large_ones(
    ticket, tmp_path, monkeypatch
):
    monkeypatch.setattr(array_file, "_ALWAYS_ALLOWED", 0)
    monkeypatch.setattr(array_file, "_EXPANSION", 1)
    slots = {
        f"dense/kernel/slot_{i}": np.zeros((36, 16), "int64")
        for i in range(200)
    }
    origin = dataclasses.replace(ticket.origin, step=1, slots=slots)
    dataclasses.replace(ticket, origin=origin).save(tmp_path / "t")
    monkeypatch.setattr(array_file, "_EXPANSION", 10)
    monkeypatch.setattr("tf_lottery.lottery.ticket_file._EXPANSION", 1)
    with pytest.raises(ValueError, match="it would unpack to 9"):
        Ticket.load(tmp_path / "t")


def test_weights_drawn_from_seeds_count_as_memory_too(
    ticket, tmp_path, monkeypatch
):
    ticket.save(tmp_path / "t", values=False)
    monkeypatch.setattr("tf_lottery.lottery.ticket_file._EXPANSION", 0)
    with pytest.raises(ValueError, match=f"unpack to {4 * 728} bytes"):
        Ticket.load(tmp_path / "t")


def test_memory_may_be_all_that_is_allowed_and_no_byte_more(small):
    # Of 6 weights, a kernel of 4 bytes each and a slot of 8.
    ticket, path, _ = small
    slots = {"kernel/momentum": np.ones((2, 3)), "iteration": np.array(7)}
    origin = State(7, ticket.origin.weights, slots)
    dataclasses.replace(ticket, origin=origin).save(path)
    header, arrays = array_file.read(path, "ticket")
    masks, size = ticket.masks, 6 * (4 + 8)
    ticket_file._require_affordable(arrays, masks, {}, size / 16)
    with pytest.raises(ValueError, match=f"unpack to {size} bytes"):
        ticket_file._require_affordable(arrays, masks, {}, (size - 1) / 16)
    fields = ticket_file._fields(header, arrays, 6)
    assert fields["masks"] == masks
    assert (
        fields["origin"].digest
        == dataclasses.replace(ticket, origin=origin).start.digest
    )
    with pytest.raises(ValueError, match="masks of 6 weights"):
        ticket_file._fields(header, arrays, 5)


def test_a_slot_of_another_shape_is_kept_whole(small):
    ticket, path, _ = small
    slots = {"kernel/rows": np.arange(2.0), "kernels": np.ones((2, 3))}
    origin = State(7, ticket.origin.weights, slots)
    dataclasses.replace(ticket, origin=origin).save(path)
    assert toy.same(Ticket.load(path).origin.slots, slots)


def test_survivors_that_do_not_fit_their_mask_are_refused(small):
    masks = small[0].masks
    for key, kept in (("kernel", np.ones(3)), ("other", np.ones(4))):
        with pytest.raises(ValueError, match="does not fit its mask"):
            ticket_file.unpack("slots", {f"slots.kept/{key}": kept}, masks)


@pytest.mark.parametrize(("spare", "is_array"), [(0, False), (-1, True)])
def test_a_long_architecture_is_no_part_of_the_header(
    ticket, tmp_path, monkeypatch, spare, is_array
):
    limit = len(ticket.architecture) + spare
    monkeypatch.setattr(ticket_file, "_HEADER_TEXT_LIMIT", limit)
    ticket.save(tmp_path / "t")
    header, arrays = array_file.read(tmp_path / "t", "ticket")
    assert (header["architecture"] is None) is is_array
    assert ("architecture" in arrays) is is_array
    assert Ticket.load(tmp_path / "t").architecture == ticket.architecture


@pytest.mark.parametrize("count", [1, 16])
def test_weights_that_are_not_finite_are_refused(ticket, tmp_path, count):
    weights = {**ticket.origin.weights}
    weights["dense/bias"] = np.where(np.arange(16) < count, np.nan, 1.0)
    bad = dataclasses.replace(ticket, origin=State(0, weights, {}))
    bad.save(tmp_path / "t")
    with pytest.raises(ValueError, match="dense/bias' holds values that are"):
        Ticket.load(tmp_path / "t")


# Tickets stored as seeds.


def test_a_seed_in_place_of_weights_gives_the_same_ticket(tmp_path):
    ticket = make(toy.mlp())
    ticket.save(tmp_path / "values")
    ticket.save(tmp_path / "seed", values=False)
    loaded = Ticket.load(tmp_path / "seed")
    assert loaded.start.digest == ticket.start.digest
    assert loaded.masks == ticket.masks
    sizes = [(tmp_path / n).stat().st_size for n in ("seed", "values")]
    assert sizes[0] < sizes[1]
    with np.load(tmp_path / "seed") as arrays:
        assert not [name for name in arrays if "kept" in name]


def test_kernels_that_no_seed_draws_are_stored_by_value(tmp_path):
    ticket = make(toy.mlp())
    weights = {**ticket.origin.weights}
    weights["dense/kernel"] = weights["dense/kernel"] + 1
    moved = dataclasses.replace(ticket, origin=State(0, weights, {}))
    moved.save(tmp_path / "t", values=False)
    assert Ticket.load(tmp_path / "t").start.digest == moved.start.digest
    with np.load(tmp_path / "t") as arrays:
        kept = [name for name in arrays if "kept" in name]
    assert kept == ["weights.kept/dense/kernel"]


def every_initializer():
    """Kernels whose initializers go by other names than `kernel`'s."""
    layers, draw = keras.layers, keras.initializers.GlorotUniform
    words = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, 6, embeddings_initializer=draw(1))(words)
    x = layers.SeparableConv1D(
        6, 2, depthwise_initializer=draw(2), pointwise_initializer=draw(3)
    )(x)
    x = layers.DepthwiseConv1D(2, depthwise_initializer=draw(4))(x)
    x = layers.LSTM(
        5, kernel_initializer=draw(5), recurrent_initializer="zeros"
    )(x)
    x = layers.Reshape((5, 1))(x)
    x = layers.GRU(5, recurrent_initializer=draw(6))(x)
    x = layers.Dense(4, kernel_initializer=keras.initializers.Orthogonal(7))(x)
    return keras.Model(words, layers.Dense(3, kernel_initializer=draw(8))(x))


def test_every_layer_is_kept_as_a_seed_where_it_has_one(tmp_path):
    keras.utils.set_random_seed(0)
    model = every_initializer()
    weights = {
        path: variable.numpy()
        for path, variable in masking.variables_by_path(model).items()
    }
    ticket = Ticket(
        level=1,
        masks=toy.random_masks(model),
        origin=State(0, weights, {}),
        architecture=masking.architecture_of(model),
    )
    ticket.save(tmp_path / "t", values=False)
    assert Ticket.load(tmp_path / "t").start.digest == ticket.start.digest
    with np.load(tmp_path / "t") as arrays:
        header = json.loads(arrays["header"].tobytes())
    seeds = {r["config"]["seed"] for r in header["drawn"].values()}
    assert seeds == {1, 2, 3, 4, 5, 6, 8}
    assert ticket.masks.keys() - header["drawn"] == {
        "dense/kernel",
        "gru/gru_cell/kernel",
        "lstm/lstm_cell/recurrent_kernel",
    }


def test_a_ticket_that_no_seed_draws_says_so(tmp_path):
    for ticket in (make(toy.mlp(), step=7), make(toy.convnet())):
        with pytest.raises(ValueError, match="the file needs its values"):
            ticket.save(tmp_path / "t", values=False)


def test_a_seed_that_draws_others_here_is_refused(tmp_path, monkeypatch):
    ticket = make(toy.mlp())
    ticket.save(tmp_path / "t", values=False)
    other = keras.initializers.GlorotUniform
    monkeypatch.setattr(keras.initializers, "GlorotNormal", other)
    with pytest.raises(ValueError, match="draws others here. Get the ticket"):
        Ticket.load(tmp_path / "t")


def test_a_ticket_written_by_version_0_1_0_still_loads():
    old = Ticket.load(pathlib.Path(__file__).with_name("format_1.ticket"))
    assert (old.level, old.origin.step, old.masks.kept) == (3, 7, 270)
    assert old.masks.digest.startswith("c2a2fd6a86485b56")
    assert old.start.digest.startswith("654aec4e63d3706d")
    assert old.build().count_params() > 0


def test_a_subclassed_model_must_be_given(ticket):
    bare = dataclasses.replace(ticket, architecture=None)
    with pytest.raises(ValueError, match=r"ticket\.build\(model\)"):
        bare.build()
    x, _ = toy.digits()
    assert np.array_equal(bare.build(toy.mlp())(x), ticket.build()(x))


def test_the_header_is_plain_json(ticket, tmp_path):
    ticket.save(tmp_path / "t")
    header = json.loads(np.load(tmp_path / "t")["header"].tobytes())
    assert header["kind"] == "ticket"
    assert header["level"] == 3
    assert header["step"] == 0


def test_a_state_at_step_zero_holds_no_slots(ticket):
    assert ticket.origin.slots == {}
    assert isinstance(ticket.start, State)
