"""Training on survivors alone is what dense training is."""

import ast
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_lottery import masking
from tf_lottery.core.masks import Masks
from tf_lottery.lottery import rewinding
from tf_lottery.training import Job, Trainer
from tf_lottery.training.backends import sparse as sparse_choice
from tf_lottery.training.backends.sparse_cpu import (
    SparseTraining,
    connections,
    kernel_types,
    kernels,
    optimizer_rules,
    simd,
    unsupported_reason,
)

L = keras.layers
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(3e-3),
    "adam_b": lambda: keras.optimizers.Adam(
        3e-3, beta_1=0.8, beta_2=0.99, epsilon=1e-3
    ),
    "scheduled": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(3e-3, 90, warmup_steps=9)
    ),
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True),
}


def flat(split):
    return split.x.reshape(len(split.x), -1), split.y


def sparse(trainer, masks, start):
    return SparseTraining(
        trainer.model,
        masks,
        trainer.recipe.optimizer,
        start.weights,
        start.slots,
    )


def batches(trainer, first, last):
    """The examples of the trainer's steps, from first to before last."""
    per_epoch = trainer.steps_per_epoch
    count, size = len(trainer.data.train), trainer.recipe.batch_size
    epochs = range(last // per_epoch + 1)
    found = [toy.batches(0, e, count, size) for e in epochs]
    return np.concatenate(found)[first:last]


def require_same(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        scale = max(1e-3, np.abs(value).max())
        assert np.abs(found[name] - value).max() <= tolerance * scale, name


@pytest.fixture(scope="module")
def dense():
    """The dense loop: Adam, 101 steps, on nothing but training data."""
    return dense_loop("adam")


def dense_loop(name):
    model = toy.mlp()
    return Trainer(
        model,
        toy.recipe(optimizer=OPTIMIZERS[name](), length="101it"),
        dataclasses.replace(toy.dataset(), validation=None, test=None),
        kernels=tuple(masking.kernels(model)),
    )


def start_of(trainer, density=0.5):
    masks = toy.random_masks(trainer.model, density)
    return masks, rewinding.rewind(trainer.state, masks)


@pytest.mark.parametrize("name", ["adam", "scheduled", "nesterov"])
def test_a_hundred_steps_are_those_of_the_dense_loop(name, dense, monkeypatch):
    monkeypatch.setattr(sparse_choice, "BREAK_EVEN", 0.0)
    trainer = dense if name == "adam" else dense_loop(name)
    whole = trainer.state
    for density in (1.0, 0.5, 0.25):
        masks, start = start_of(trainer, density)
        (run,) = trainer.train([Job(start, masks, capture=(100,))])
        training = sparse(trainer, masks, start)
        x, y = flat(trainer.data.train)
        training.run(x, y, batches(trainer, 0, 90))
        loss = training.run(x, y, batches(trainer, 90, 100))
        weights, slots = training.state()
        require_same(weights, run.captured[0].weights)
        require_same(slots, run.captured[0].slots, 1e-5)
        moved = [np.abs(weights[p] - start.weights[p]).max() for p in weights]
        assert max(moved) > 0.01
        assert loss == pytest.approx(run.curve[9]["loss"], rel=1e-5)
        trainer.state = whole


@st.composite
def networks(draw):
    """A random chain of dense layers, its masks, and how it trains."""
    sizes = draw(
        st.tuples(
            st.sampled_from([1, 7, 21, 240]),
            *[st.integers(1, 12)] * draw(st.integers(0, 2)),
            st.integers(1, 5),
        )
    )
    settings = [
        (draw(st.sampled_from(["relu", None])), draw(st.booleans()))
        for _ in sizes[1:]
    ]
    density = st.sampled_from([0.0, 0.15, 0.5, 1.0])
    return {
        "sizes": sizes,
        "layers": settings,
        "densities": [draw(density) for _ in sizes[1:]],
        "dark": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "batch": draw(st.sampled_from([1, 7, 60, 64, 65, 128])),
        "optimizer": draw(st.sampled_from(sorted(OPTIMIZERS))),
        "seed": draw(st.integers(0, 99)),
    }


def chain(sizes, layers):
    model = keras.Sequential([keras.Input(sizes[:1])])
    for units, (activation, use_bias) in zip(sizes[1:], layers, strict=True):
        model.add(L.Dense(units, activation, use_bias=use_bias))
    return model


def dense_steps(model, optimizer, x, y, steps):
    """What Keras does, step by step, without a graph."""
    for batch in steps:
        with tf.GradientTape() as tape:
            value = toy.loss()(y[batch], model(x[batch], training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)
    return float(value)


@pytest.mark.slow
@settings(max_examples=25)
@given(networks())
def test_any_chain_trains_as_keras_trains_it(case):
    keras.utils.set_random_seed(case["seed"])
    random = np.random.default_rng(case["seed"])
    model = chain(case["sizes"], case["layers"])
    masks = {
        path: random.random(kernel.variable.shape) < density
        for (path, kernel), density in zip(
            masking.kernels(model).items(), case["densities"], strict=True
        )
    }
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape) * 0.5)
    x = random.normal(size=(200, case["sizes"][0])).astype("float32")
    x[:, random.random(case["sizes"][0]) < case["dark"]] = 0
    y = random.integers(case["sizes"][-1], size=200)
    steps = random.integers(200, size=(3, case["batch"]), dtype=np.int32)
    optimizer = OPTIMIZERS[case["optimizer"]]()
    if "epsilon" in optimizer.get_config():
        # Where gradients cancel, Adam would divide noise by noise.
        optimizer.epsilon = 1e-2
    optimizer.build(model.trainable_variables)
    masking.masked_optimizer(optimizer, Masks(masks), model)
    start = {p: v.numpy() for p, v in masking.variables_by_path(model).items()}
    training = SparseTraining(model, masks, optimizer, start)
    training.run(x, y, steps[:2])
    loss = training.run(x, y, steps[2:])
    assert loss == pytest.approx(
        dense_steps(model, optimizer, x, y, steps), rel=1e-5, abs=1e-6
    )
    expected = {
        p: v.numpy() for p, v in masking.variables_by_path(model).items()
    }
    require_same(training.state()[0], expected)
    logits = model(x)
    losses, correct = training.evaluate(x, y)
    np.testing.assert_allclose(
        losses, toy.loss().call(y, logits), rtol=1e-5, atol=1e-5
    )
    gap = np.diff(np.sort(logits, axis=1)[:, -2:]).min(initial=1)
    if gap > 1e-5:
        np.testing.assert_array_equal(correct, np.argmax(logits, axis=1) == y)


def problem(optimizer="adam", density=0.5):
    """A network to train without the dense loop: arguments, data, order."""
    model = toy.mlp()
    masks = toy.random_masks(model, density)
    weights = {
        path: np.where(masks[path], v.numpy(), 0)
        if path in masks
        else v.numpy()
        for path, v in masking.variables_by_path(model).items()
    }
    data = flat(toy.dataset().train)
    steps = np.random.default_rng(0).integers(480, size=(90, 65))
    arguments = model, masks, OPTIMIZERS[optimizer](), weights
    return arguments, data, steps.astype(np.int32)


def trained(arguments, data, steps):
    training = SparseTraining(*arguments)
    training.run(*data, steps)
    return training.state()


@pytest.mark.parametrize("optimizer", ["scheduled", "nesterov"])
def test_steps_give_the_same_bits_however_they_are_cut(optimizer):
    arguments, data, steps = problem(optimizer)
    whole = trained(arguments, data, steps)
    training = SparseTraining(*arguments)
    for cut in np.split(steps, [1, 37]):
        # As a run does that was killed and goes on from what it stored.
        weights, slots = training.state()
        training = SparseTraining(*arguments[:3], weights, slots)
        training.run(*data, cut)
    for one, other in zip(training.state(), whole, strict=True):
        assert toy.same(one, other)
    assert not toy.same(whole[0], arguments[3])


def test_networks_side_by_side_give_the_bits_of_each_alone():
    problems = [problem(density=density) for density in (0.3, 0.6)]
    alone = [trained(*case)[0] for case in problems]
    together = {}
    threads = [
        threading.Thread(
            target=lambda i=i: together.update({i: trained(*problems[i])[0]})
        )
        for i in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (0, 1):
        assert toy.same(together[i], alone[i])


TRAIN_WITHOUT_KERAS = """
import sys, types, zlib, numpy as np
for name in ("", ".backends", ".backends.sparse_cpu"):
    package = types.ModuleType("tf_lottery.training" + name)
    package.__path__ = [sys.argv[1]]
    sys.modules[package.__name__] = package
from tf_lottery.training.backends.sparse_cpu import connections, kernel_types
assert "numba" not in sys.modules
from tf_lottery.training.backends.sparse_cpu import kernels
random = np.random.default_rng(0)
sizes = 100, 60, 10
layers = [
    connections.Layer(random.random(shape) < 0.3, True, shape[1] == 60)
    for shape in zip(sizes, sizes[1:])
]
survivor, network = connections.build_connections(layers, np.ones(100, bool))
count = len(survivor)
weight = random.normal(size=count).astype("f4") / 5
parameters = kernel_types.Parameters(weight, *np.zeros((3, count), "f4"))
constants = np.array([.9, .999, .1, 1e-3, 1e-7], "f4")
rule = kernel_types.Rule(True, *constants, False)
arrays = [
    random.normal(size=(500, 100)).astype("f4"),
    random.integers(10, size=500).astype("i4"),
    random.integers(500, size=(300, 60)).astype("i4"),
    np.full(300, 3e-3, "f4"),
]
for array in arrays:
    array.flags.writeable = False
buffers = kernel_types.buffers(network, 60)
batches = kernel_types.Batches(*arrays, 0)
loss = kernels.run(network, parameters, rule, batches, buffers)
crc = [zlib.crc32(array) for array in parameters]
print(loss, crc, len(kernels.run.stats.cache_hits))
"""


@pytest.mark.slow
def test_compiled_or_from_the_cache_the_bits_are_the_same(tmp_path):
    folder = pathlib.Path(kernels.__file__).parent
    fresh, cached = (
        subprocess.run(
            [sys.executable, "-c", TRAIN_WITHOUT_KERAS, folder],
            cwd=folder.parents[3],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    )
    assert fresh[:-1] == cached[:-1]
    assert [fresh[-1], cached[-1]] == ["0", "1"]


def test_the_cache_watches_every_file_that_is_compiled():
    (cell,) = kernels.run.py_func.__closure__
    texts = [
        pathlib.Path(module.__file__).read_text()
        for module in (kernel_types, simd)
    ]
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    assert cell.cell_contents == digest


def test_everything_runs_on_one_compilation():
    arguments, (x, y), steps = problem()
    training = SparseTraining(*arguments)
    x.flags.writeable = False
    training.run(x, y.astype(np.int64), steps)
    training.evaluate(x.copy(), y)
    assert len(kernels.run.signatures) == 1


def test_numba_is_imported_when_something_is_first_trained():
    compiled = {"kernels", "simd"}
    for file in pathlib.Path(kernels.__file__).parent.glob("*.py"):
        if file.stem in compiled:
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names}
                assert not names & (compiled | {"numba"}), file


def test_other_views_of_the_inputs_are_wired_once(monkeypatch):
    arguments, (x, y), steps = problem()
    training = SparseTraining(*arguments)
    calls = []
    build = connections.build_connections
    monkeypatch.setattr(
        connections,
        "build_connections",
        lambda *a: calls.append(a) or build(*a),
    )
    for _ in range(3):
        training.run(x.reshape(x.shape), y, steps[:1])
    assert len(calls) == 1
    training.run(x.copy(), y, steps[:1])
    assert len(calls) == 2


def test_inputs_dark_in_training_count_in_evaluation():
    arguments, (x, y), steps = problem(density=1.0)
    model, masks, optimizer, weights = arguments
    x[:, :5] = 0
    training = SparseTraining(*arguments)
    training.run(x, y, steps)
    trained, _ = training.state()
    kernel = trained["dense/kernel"]
    assert (kernel[:5] == weights["dense/kernel"][:5]).all()
    assert (kernel[5:] != weights["dense/kernel"][5:]).any()
    x[:, :5] = 1
    for path, variable in masking.variables_by_path(model).items():
        variable.assign(trained[path])
    losses, _ = training.evaluate(x, y)
    logits = model(x.reshape(-1, 6, 6, 1))
    np.testing.assert_allclose(
        losses, toy.loss().call(y, logits), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_weights_without_gradient_go_on_by_their_momentum(optimizer):
    """Trained on some data, then on other data, where other inputs are dark."""
    arguments, (x, y), steps = problem(optimizer, density=1.0)
    model, masks, keras_optimizer, weights = arguments
    training = SparseTraining(*arguments)
    for path, variable in masking.variables_by_path(model).items():
        variable.assign(weights[path])
    for dark in (2, 5, 0):
        seen = x.copy()
        seen[:, :dark] = 0
        training.run(seen, y, steps[:3])
        images = seen.reshape(-1, 6, 6, 1)
        dense_steps(model, keras_optimizer, images, y, steps[:3])
    require_same(
        training.state()[0],
        {p: v.numpy() for p, v in masking.variables_by_path(model).items()},
        1e-5,
    )


def test_moments_without_gradient_end_at_zero():
    """Not at the smallest number there is, with which CPUs are slow."""
    arguments, (x, y), steps = problem(density=1.0)
    training = SparseTraining(*arguments)
    training.run(x, y, steps[:5])
    assert training.state()[1]["dense/kernel/momentum"][:5].any()
    x = x.copy()
    x[:, :5] = 0
    for _ in range(10):
        training.run(x, y, steps)
    slots = training.state()[1]
    assert (slots["dense/kernel/momentum"][:5] == 0).all()
    assert (slots["dense/kernel/velocity"][:5] > 0).any()


def test_a_loss_that_is_not_finite_is_reported():
    (model, masks, _, weights), data, steps = problem()
    optimizer = keras.optimizers.SGD(1e30)
    training = SparseTraining(model, masks, optimizer, weights)
    assert not np.isfinite(training.run(*data, steps))
    optimizer = keras.optimizers.SGD(0.1)
    broken = weights | {"dense/bias": np.full(16, np.nan, np.float32)}
    training = SparseTraining(model, masks, optimizer, broken)
    assert np.isnan(training.run(*data, steps))


@pytest.mark.parametrize("scale", [1, 10, 30, 1e6])
def test_softmax_is_right_however_far_apart_logits_are(scale):
    random = np.random.default_rng(0)
    model = chain((5, 5), [(None, False)])
    kernel = {"dense/kernel": np.eye(5, dtype="float32")}
    x = (random.normal(size=(300, 5)) * scale).astype("float32")
    y = random.integers(5, size=300)
    training = SparseTraining(model, {}, keras.optimizers.SGD(1.0), kernel)
    exact = x.astype("float64") - x.max(axis=1, keepdims=True)
    total = np.exp(exact).sum(axis=1, keepdims=True)
    expected = (np.log(total) - exact[np.arange(300), y, None])[:, 0]
    losses, correct = training.evaluate(x, y)
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=3e-7)
    np.testing.assert_array_equal(correct, x.argmax(axis=1) == y)
    training.run(x, y, np.arange(300, dtype=np.int32)[None])
    slopes = (np.exp(exact) / total - np.eye(5)[y]) / 300
    np.testing.assert_allclose(
        training.state()[0]["dense/kernel"],
        np.eye(5) - x.T.astype("float64") @ slopes,
        atol=1e-6 * scale,
    )


def test_connections_without_gradient_are_left_out():
    hidden = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]], bool)
    output = np.array([[1, 0], [0, 0], [1, 1]], bool)
    layers = [
        connections.Layer(hidden, has_bias=True, relu=True),
        connections.Layer(output, has_bias=False, relu=False),
    ]
    live = np.array([True, True, True, False])
    survivor, network = connections.build_connections(layers, live)
    # The second unit leads nowhere; the last input is dark. Of rows 5 and 6,
    # the other units, each segment first reads the row of ones, 4.
    assert network.layer_row.tolist() == [5, 7, 9]
    assert network.row.tolist() == [5, 6, 7, 8]
    assert network.column.tolist() == [4, 0, 2, 4, 2, 5, 6, 6]
    assert survivor[:8].tolist() == [8, 0, 3, 10, 4, 11, 12, 13]
    assert sorted(survivor[8:]) == [1, 2, 5, 6, 7, 9]


def test_every_unit_reads_one_block_of_inputs_before_the_next():
    layer = connections.Layer(np.ones((250, 7), bool), False, False)
    survivor, network = connections.build_connections(
        [layer], np.ones(250, bool)
    )
    assert sorted(survivor) == list(range(7 * 250))
    assert network.row.tolist() == [*range(251, 258)] * 3
    seen = [
        set(network.column[first:last])
        for first, last in itertools.pairwise(network.start)
    ]
    for block in (0, 7, 14):
        assert all(one == seen[block] for one in seen[block : block + 7])
        assert 80 <= len(seen[block]) <= 90
    assert network.octet.tolist() == [*range(0, 248, 8)]
    assert network.single.tolist() == [248, 249]


def test_the_state_says_the_learning_rate():
    (model, masks, optimizer, weights), data, steps = problem("sgd")
    slow = {"iteration": np.array(7), "learning_rate": np.float32(0)}
    training = SparseTraining(model, masks, optimizer, weights, slow)
    training.run(*data, steps)
    found, slots = training.state()
    assert toy.same(found, weights)
    assert slots == {"iteration": 97, "learning_rate": 0}


def test_a_steps_rate_depends_on_the_step_alone():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 3_000)
    found = optimizer_rules.Rates(keras.optimizers.SGD(schedule))(1_000, 1_050)
    expected = [float(schedule(step)) for step in range(1_000, 1_050)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    again = optimizer_rules.Rates(keras.optimizers.SGD(schedule))(1_030, 1_031)
    assert again == found[30]


def logits_loss(**settings):
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, **settings
    )


def stacked(*layers):
    return lambda: keras.Sequential([keras.Input((6, 6, 1)), *layers])


def branching():
    x = inputs = keras.Input((4,))
    for _ in range(2):
        x = L.Dense(4)(inputs)
    return keras.Model(inputs, L.Dense(3)(L.Add()([x, inputs])))


def functional():
    inputs = keras.Input((6, 6, 1))
    x = L.ReLU()(L.Dense(8)(L.Reshape((36,))(inputs)))
    return keras.Model(inputs, L.Activation("relu")(L.Dense(3)(x)))


class Own(keras.Model):
    pass


def frozen():
    model = toy.mlp()
    model.layers[1].trainable = False
    return model


MODELS_REFUSED = {
    "is a Dropout": lambda: toy.mlp(dropout=0.1),
    "Own is a subclassed model": Own,
    "is not a chain": branching,
    "is a Conv2D": toy.convnet,
    "shape .6, 6, 1.; flatten": stacked(L.Dense(3)),
    "has activation 'tanh'": stacked(L.Flatten(), L.Dense(3, "tanh")),
    "has activation 'softmax'": stacked(
        L.Flatten(), L.Dense(3), L.Activation("softmax")
    ),
    "not a plain ReLU": stacked(L.Flatten(), L.Dense(3), L.ReLU(6)),
    "applies ReLU to the inputs": stacked(L.Flatten(), L.ReLU(), L.Dense(3)),
    "has a kernel_regularizer": stacked(
        L.Flatten(), L.Dense(3, kernel_regularizer="l2")
    ),
    "has a bias_constraint": stacked(
        L.Flatten(), L.Dense(3, bias_constraint="non_neg")
    ),
    "computes in float64": stacked(L.Flatten(), L.Dense(3, dtype="float64")),
    "is a Flatten": stacked(L.Flatten(data_format="channels_first")),
    "no Dense": stacked(L.Flatten()),
    "outputs have shape": stacked(L.Flatten(), L.Dense(3), L.Reshape((3, 1))),
    "not built": lambda: keras.Sequential([L.Dense(3)]),
    "is frozen": frozen,
    "is a MaskedDense": lambda: masking.mask_model(toy.mlp()),
}


@pytest.mark.parametrize("reason", MODELS_REFUSED)
def test_models_are_refused_with_their_reason(reason):
    model = MODELS_REFUSED[reason]()
    optimizer = keras.optimizers.Adam()
    said = unsupported_reason(model, logits_loss(), optimizer, {})
    assert re.search(reason, said)
    assert "\n" not in said
    with pytest.raises(ValueError, match=reason):
        SparseTraining(model, {}, optimizer, {})


OPTIMIZERS_REFUSED = {
    "is AdamW": lambda: keras.optimizers.AdamW(),
    "is RMSprop": lambda: keras.optimizers.RMSprop(),
    "has amsgrad=True": lambda: keras.optimizers.Adam(amsgrad=True),
    "has weight_decay=0.1": lambda: keras.optimizers.SGD(weight_decay=0.1),
    "has clipnorm=1": lambda: keras.optimizers.Adam(clipnorm=1.0),
    "has clipvalue=1": lambda: keras.optimizers.SGD(clipvalue=1.0),
    "has global_clipnorm=1": lambda: keras.optimizers.SGD(global_clipnorm=1.0),
    "has use_ema=True": lambda: keras.optimizers.SGD(use_ema=True),
    "has gradient_accumulation_steps=2": lambda: keras.optimizers.SGD(
        gradient_accumulation_steps=2
    ),
    "has loss_scale_factor=2": lambda: keras.optimizers.Adam(
        loss_scale_factor=2.0
    ),
    "has epsilon=0": lambda: keras.optimizers.Adam(epsilon=0.0),
    "is a function": lambda: keras.optimizers.Adam(lambda: 0.1),
}


@pytest.mark.parametrize("reason", OPTIMIZERS_REFUSED)
def test_optimizers_are_refused_with_their_reason(reason):
    optimizer = OPTIMIZERS_REFUSED[reason]()
    assert reason in unsupported_reason(toy.mlp(), logits_loss(), optimizer, {})


LOSSES_REFUSED = {
    "from_logits=True": keras.losses.SparseCategoricalCrossentropy(),
    "is not Sparse": keras.losses.CategoricalCrossentropy(from_logits=True),
    "reduction='sum'": logits_loss(reduction="sum"),
    "ignore_class=0": logits_loss(ignore_class=0),
    "in float16": logits_loss(dtype="float16"),
}


@pytest.mark.parametrize("reason", LOSSES_REFUSED)
def test_losses_are_refused_with_their_reason(reason):
    optimizer = keras.optimizers.Adam()
    loss = LOSSES_REFUSED[reason]
    assert reason in unsupported_reason(toy.mlp(), loss, optimizer, {})


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ({"dense/bias": np.ones(16, bool)}, "is not the kernel"),
        ({"dense/kernel": np.ones((36, 16))}, "is float64"),
        ({"dense/kernel": np.ones((16, 36), bool)}, "not bool .36, 16"),
    ],
)
def test_masks_are_refused_with_their_reason(masks, reason):
    optimizer = keras.optimizers.Adam()
    said = unsupported_reason(toy.mlp(), logits_loss(), optimizer, masks)
    assert re.search(reason, said)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("build", [toy.mlp, functional])
def test_chains_of_dense_layers_are_not_refused(name, build):
    model, optimizer = build(), OPTIMIZERS[name]()
    masks = toy.random_masks(model)
    assert unsupported_reason(model, logits_loss(), optimizer, masks) is None
    masking.masked_optimizer(optimizer, masks, model)
    assert unsupported_reason(model, logits_loss(), optimizer, masks) is None


def test_activations_may_be_layers_of_their_own():
    keras.utils.set_random_seed(0)
    model, optimizer = functional(), OPTIMIZERS["sgd"]()
    weights = {
        p: v.numpy() for p, v in masking.variables_by_path(model).items()
    }
    (x, y), steps = problem()[1:]
    training = SparseTraining(model, {}, optimizer, weights)
    training.run(x, y, steps[:5])
    dense_steps(model, optimizer, x.reshape(-1, 6, 6, 1), y, steps[:5])
    variables = masking.variables_by_path(model)
    require_same(
        training.state()[0], {p: v.numpy() for p, v in variables.items()}
    )


X, Y = np.zeros((5, 36), "f4"), np.zeros(5, "i4")
ORDER = np.zeros((2, 3), "i4")


@pytest.mark.parametrize(
    ("x", "y", "steps", "reason"),
    [
        (X.astype("f8"), Y, ORDER, "got float64 .5, 36"),
        (X.reshape(5, 6, 6), Y, ORDER, "got float32 .5, 6, 6"),
        (X[:, ::2], Y, ORDER, "examples, 36.; got float32 .5, 18"),
        (np.asfortranarray(X), Y, ORDER, "must be C-contiguous"),
        (X[:0], Y[:0], ORDER, "got float32 .0, 36"),
        (X, Y.astype("f4"), ORDER, "got float32 .5,"),
        (X, Y[:4], ORDER, "must hold 5 integers"),
        (X, Y + 3, ORDER, "labels 3 to 3; .* 0 to 2"),
        (X, Y - 1, ORDER, "labels -1 to -1"),
        (X, Y, ORDER.astype("i8"), "got int64 .2, 3"),
        (X, Y, ORDER[0], "got int32 .3,"),
        (X, Y, ORDER[:0], "got int32 .0, 3"),
        (X, Y, ORDER + 5, "examples 5 to 5; there are 0 to 4"),
        (X, Y, np.asfortranarray(ORDER), "order.copy"),
    ],
)
def test_data_that_does_not_fit_is_refused(x, y, steps, reason):
    arguments, _, _ = problem()
    with pytest.raises(ValueError, match=reason):
        SparseTraining(*arguments).run(x, y, steps)


def test_a_start_that_does_not_fit_is_refused():
    (model, masks, optimizer, weights), _, _ = problem()
    bad = {
        "is not 0 where": weights | {"dense/kernel": np.ones((36, 16), "f4")},
        "float64": weights | {"dense/bias": np.zeros(16)},
        r"\(15,\)": weights | {"dense/bias": np.zeros(15, "f4")},
        "'dense/bias' is missing": {"dense/kernel": weights["dense/kernel"]},
    }
    for reason, given_weights in bad.items():
        with pytest.raises(ValueError, match=reason):
            SparseTraining(model, masks, optimizer, given_weights)
    with pytest.raises(ValueError, match="dense/kernel/momentum' is missing"):
        SparseTraining(
            model, masks, optimizer, weights, {"iteration": np.array(3)}
        )
