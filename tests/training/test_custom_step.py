"""Models that train as their own class says are searched as they are."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_lottery import controls, masking
from tf_lottery.core.masks import Masks
from tf_lottery.data import augmentation, load_dataset
from tf_lottery.lottery import rewinding
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.ticket_search import TicketSearch
from tf_lottery.training import Job, Trainer

L = keras.layers


@keras.saving.register_keras_serializable("tests")
class AsKeras(keras.Model):
    """What Keras' step does, by hand."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compute_loss(x, y, outputs)
            scaled = self.optimizer.scale_loss(loss)
        weights = self.trainable_variables
        gradients = tape.gradient(scaled, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {"loss": loss}


class Relayed(keras.Model):
    """Takes Keras' step, which reports the mean of all losses so far."""

    def train_step(self, data):
        return super().train_step(data)


class Smoothed(keras.Model):
    """Smooths labels in its loss, and pulls the head towards zero."""

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        labels = keras.ops.one_hot(y, 10) * 0.9 + 0.01
        losses = keras.losses.categorical_crossentropy(
            labels, y_pred, from_logits=True
        )
        head = self.get_layer("head").kernel
        return keras.ops.mean(losses) + 1e-3 * keras.ops.sum(head**2)


class Denoising(keras.Model):
    """Classifies, and restores images from noisy ones; counts by itself."""

    def __init__(self, units=32, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.noise = keras.random.SeedGenerator(1)
        self.flat, self.drop = L.Flatten(), L.Dropout(0.1)
        self.encoder = L.Dense(units, "relu")
        self.decoder, self.head = L.Dense(784), L.Dense(10)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.restoration = keras.metrics.Mean(name="restoration")

    def build(self, shape):
        self.encoder.build((None, 784))
        self.decoder.build((None, self.units))
        self.head.build((None, self.units))
        super().build(shape)

    @property
    def metrics(self):
        return [self.loss_tracker, self.restoration]

    def call(self, x, training=False):
        hidden = self.encoder(self.flat(x))
        return self.head(self.drop(hidden, training=training))

    def train_step(self, data):
        x, y = data
        clean = self.flat(x)
        noisy = clean + 0.3 * keras.random.normal(
            keras.ops.shape(clean), seed=self.noise
        )
        with tf.GradientTape() as tape:
            hidden = self.encoder(noisy)
            logits = self.head(self.drop(hidden, training=True))
            restored = self.decoder(hidden)
            restoration = keras.ops.mean((restored - clean) ** 2)
            loss = self.compute_loss(x, y, logits) + restoration
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        self.loss_tracker.update_state(loss)
        self.restoration.update_state(restoration)
        return {m.name: m.result() for m in self.metrics}


class Contrastive(keras.Model):
    """Learns without labels: two views of an image shall lie together."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.views = keras.random.SeedGenerator(2)
        self.flat, self.first = L.Flatten(), L.Dense(24, "relu")
        self.second = L.Dense(8)

    def call(self, x):
        z = self.second(self.first(self.flat(x)))
        return {"embedding": z}

    def _loss(self, x, **how):
        shape = keras.ops.shape(x)
        one, two = (
            keras.ops.normalize(
                self(x + 0.2 * keras.random.normal(shape, **how))["embedding"]
            )
            for _ in range(2)
        )
        losses = keras.losses.sparse_categorical_crossentropy(
            keras.ops.arange(shape[0]),
            5 * one @ keras.ops.transpose(two),
            from_logits=True,
        )
        return keras.ops.mean(losses)

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            loss = self._loss(x, seed=self.views)
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {"loss": loss}

    def test_step(self, data):
        x, _ = data
        return {"loss": self._loss(x, seed=self.views)}


def smoothed():
    image = keras.Input((28, 28, 1))
    x = L.Dense(32, "relu", name="first")(L.Flatten()(image))
    return Smoothed(image, L.Dense(10, name="head")(x))


def called(model, shape=(28, 28, 1)):
    model(np.zeros((1, *shape), "float32"))
    return model


def denoising():
    return called(Denoising())


def contrastive():
    return called(Contrastive())


def as_keras(plain, cls=AsKeras):
    """Returns a graph as a model of a class, weights and all."""
    return cls(plain.inputs, plain.outputs[0])


def dense():
    """A graph that starts from the same weights every time."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 1))
    x = L.BatchNormalization()(L.Conv2D(3, 3, activation="relu")(image))
    x = L.Dense(8, "relu", kernel_regularizer="l2")(L.Flatten()(x))
    return keras.Model(image, L.Dense(3)(x))


@functools.cache
def mnist():
    return load_dataset("mnist")


def digits(split, examples):
    part = getattr(mnist(), split)
    return part.x[:examples], part.y[:examples]


def obeys(masks, arrays):
    """Whether kernels, and slots of them, are zero where masks prune."""
    return all(
        not np.any(array[~masks[path]])
        for path in masks
        for name, array in arrays.items()
        if f"{name}/".startswith(f"{path}/") and array.shape
    )


# Real models on real images.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "loss", "metrics"),
    [
        (smoothed, None, ("accuracy",)),
        (denoising, toy.loss(), ("accuracy",)),
        (contrastive, None, ()),
    ],
)
def test_three_levels_of_a_model_with_steps_of_its_own(build, loss, metrics):
    model = build()
    before = {k: v.numpy() for k, v in masking.variables_by_path(model).items()}
    search = TicketSearch(model, levels=3, rate=0.3)
    search.compile(keras.optimizers.Adam(4e-3), loss, metrics=metrics)
    search.fit(
        *digits("train", 1000),
        batch_size=50,
        length="60it",
        evaluate_every=30,
        validation_data=digits("validation", 500),
        test_data=digits("test", 500),
        verbose=False,
    )
    assert [t.level for t in search.tickets] == [0, 1, 2, 3]
    assert search.tickets[3].density == pytest.approx(0.343, abs=0.01)
    for ticket in search.tickets:
        assert obeys(ticket.masks, ticket.trained)
        if metrics:
            assert ticket.metrics["test_accuracy"] > 0.7
    assert not model.compiled
    for path, variable in masking.variables_by_path(model).items():
        assert np.array_equal(variable, before[path])

    subnet = search.tickets[3].build(model)
    assert type(subnet) is type(model)
    subnet.compile("adam", loss)
    subnet.fit(*digits("train", 100), verbose=0)
    masks = search.tickets[3].masks
    assert obeys(masks, {p: v.numpy() for p, v in variables(subnet).items()})


def variables(model):
    return masking.variables_by_path(model)


# Null cases: what Keras does, written by hand.


def tickets(model, levels=3, **settings):
    search = TicketSearch(model, levels, rate=0.4, **settings)
    search.compile(keras.optimizers.SGD(0.05, momentum=0.9), toy.loss())
    search.fit(
        *toy.digits(seed=1),
        batch_size=20,
        length="60it",
        evaluate_every=10,
        validation_data=toy.digits(200, seed=2),
        test_data=toy.digits(300, seed=3),
        verbose=False,
    )
    return search.tickets


@pytest.mark.slow
def test_a_step_that_is_keras_own_gives_the_same_tickets():
    plain, own = tickets(dense()), tickets(as_keras(dense()))
    for one, other in zip(plain, own, strict=True):
        assert one.masks == other.masks
        # Its `loss` is that of the last step, as in Keras' history.
        left_out = {"seconds", "loss"}
        for name in one.metrics.keys() & other.metrics.keys() - left_out:
            found = other.metrics[name]
            assert one.metrics[name] == (
                found
                if name == "deciding_metric"
                else pytest.approx(found, abs=1e-5)
            )
        assert other.metrics.keys() <= one.metrics.keys()
        for path, value in one.trained.items():
            np.testing.assert_allclose(other.trained[path], value, atol=1e-5)


def job_of(trainer, **settings):
    model = trainer.model
    masks = toy.random_masks(model)
    start = rewinding.rewind(trainer.initial(model, 0), masks)
    return Job(start, masks, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        toy.OPTIMIZERS["scaling"],
        toy.OPTIMIZERS["accumulating"],
        toy.OPTIMIZERS["nadam"],
        lambda: keras.optimizers.Muon(3e-3, use_ema=True),
    ],
    ids=["scaling", "accumulating", "nadam", "muon"],
)
def test_states_are_those_of_a_plain_model_and_obey_masks(make):
    states = []
    for model in (dense(), as_keras(dense())):
        optimizer = make()
        trainer = toy.trainer(model, length="9it", optimizer=optimizer)
        job = job_of(trainer, capture=(7, 8))
        (run,) = trainer.train([job])
        states.append(run.captured)
    assert trainer.stacking(2)[0] == "in turn"
    for plain, own in zip(*states, strict=True):
        for part in ("weights", "slots"):
            one, other = getattr(plain, part), getattr(own, part)
            assert obeys(job.masks, other)
            assert one.keys() == other.keys()
            for path, value in one.items():
                np.testing.assert_allclose(other[path], value, atol=5e-5)


@pytest.mark.slow
def test_networks_in_turn_are_networks_alone_augmented_or_not():
    images = dataclasses.replace(
        toy.dataset(), augment=augmentation.Augmentation(flip=True, pad=1)
    )
    runs = []
    for model in (dense(), as_keras(dense(), Relayed)):
        kernels = tuple(masking.kernels(model))
        recipe = toy.recipe("30it", keras.optimizers.SGD(0.05))
        trainer = Trainer(model, recipe, images, kernels)
        jobs = [job_of(trainer, seed=seed) for seed in (3, 4)]
        together = trainer.train(jobs)
        runs.append(together[1])
        if type(model) is Relayed:
            (alone,) = trainer.train(jobs[1:])
            assert toy.same(alone.trained, together[1].trained)
            assert not toy.same(alone.trained, together[0].trained)
    for one, other in zip(*(run.curve for run in runs), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    for path, value in runs[0].trained.items():
        np.testing.assert_allclose(runs[1].trained[path], value, atol=1e-5)


class Clipping(AsKeras):
    """Clips by the norm of all gradients, as Keras' optimizers can."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        gradients, _ = tf.clip_by_global_norm(gradients, 0.1)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {"loss": loss}


def test_a_step_sees_no_gradient_of_pruned_weights():
    runs = []
    for model, norm in ((dense(), 0.1), (as_keras(dense(), Clipping), None)):
        optimizer = keras.optimizers.SGD(0.5, global_clipnorm=norm)
        trainer = toy.trainer(model, length="12it", optimizer=optimizer)
        runs += trainer.train([job_of(trainer)])
    for path, value in runs[0].trained.items():
        np.testing.assert_allclose(runs[1].trained[path], value, atol=1e-5)


# What a network comes to does not depend on how often it was killed.


def noisy_trainer(length="60it"):
    keras.utils.set_random_seed(0)
    data = mnist()
    few = {
        name: dataclasses.replace(split, x=split.x[:400], y=split.y[:400])
        for name in ("train", "validation", "test")
        if (split := getattr(data, name))
    }
    model = denoising()
    recipe = toy.recipe(length, toy.OPTIMIZERS["averaging"]())
    kernels = tuple(masking.kernels(model))
    return Trainer(model, recipe, dataclasses.replace(data, **few), kernels)


@pytest.mark.slow
def test_a_killed_network_is_resumed_to_the_same_bytes(tmp_path, monkeypatch):
    trainer = noisy_trainer()
    (whole,) = trainer.train([job_of(trainer)])
    job = job_of(trainer, capture=(10, 20), folder=tmp_path)
    toy.killed(trainer, [job], monkeypatch, at=40)
    steps = []
    (rest,) = noisy_trainer().train([job], lambda _, s, __: steps.append(s))
    assert steps[0] == 30
    assert toy.same(whole.trained, rest.trained)
    # TensorFlow's sum of a batch's losses may round otherwise each time.
    for row, other in zip(whole.curve, rest.curve, strict=True):
        assert row == pytest.approx(other, rel=1e-6)
    assert [state.step for state in rest.captured] == [10, 20]
    for split, right in whole.per_example.items():
        assert np.array_equal(right, rest.per_example[split])


def test_a_network_goes_on_from_a_captured_state_to_the_same_bytes():
    trainer = noisy_trainer()
    job = job_of(trainer, capture=(25,), keeps_slots=True)
    (whole,) = trainer.train([job])
    (theta_k,) = whole.captured
    assert theta_k.step == theta_k.slots["iteration"] == 25
    again = Job(theta_k, job.masks, keeps_slots=True)
    (rest,) = trainer.train([again])
    assert toy.same(whole.trained, rest.trained)
    assert toy.same(whole.slots, rest.slots)
    seeds = [p for p in whole.trained if p.endswith("seed_generator_state")]
    assert len(seeds) == 2
    for path in seeds:
        assert np.any(theta_k.weights[path] != whole.trained[path])


# Losses.


def test_a_loss_of_its_own_is_validated_on():
    model = smoothed()
    search = TicketSearch(model, levels=0)
    search.compile("sgd", toy.loss())
    x, y = digits("validation", 2600)  # more than one batch of evaluation
    search.fit(
        *digits("train", 100),
        batch_size=50,
        length="2it",
        evaluate_every=2,
        validation_data=(x, y),
        verbose=False,
    )
    (ticket,) = search.tickets
    trained = ticket.model(model)
    expected = float(trained.compute_loss(x, y, trained(x)))
    found = ticket.metrics["validation_loss"]
    assert found == pytest.approx(expected, abs=1e-5)
    assert found != pytest.approx(float(toy.loss()(y, trained(x))), abs=1e-3)


DATA = {denoising: digits("train", 60), dense: toy.digits(60)}


@pytest.mark.parametrize("build", DATA)
def test_a_loss_is_needed_where_the_class_has_none(build):
    model = build()
    search = TicketSearch(model, levels=0)
    search.compile("sgd")
    with pytest.raises(ValueError, match="A loss is needed"):
        search.fit(*DATA[build], verbose=False)


# What cannot be right is refused before anything trains.


class Silent(AsKeras):
    def train_step(self, data):
        return {"error": super().train_step(data)["loss"]}


class Adversarial(AsKeras):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.second_optimizer = keras.optimizers.SGD()


class TwoOptimizers(AsKeras):
    def compile(self, first_optimizer, second_optimizer):
        super().compile(first_optimizer)


class Unseeded(AsKeras):
    def train_step(self, data):
        x, y = data
        return super().train_step((x + keras.random.normal(x.shape), y))


class Wavering(AsKeras):
    def test_step(self, data):
        x, y = data
        return super().test_step((x + keras.random.normal(x.shape), y))


class Remembering(AsKeras):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = tf.Variable(0.0)

    def train_step(self, data):
        x, y = data
        self.seen.assign_add(1.0)
        return super().train_step((x * self.seen, y))


class Assigning(AsKeras):
    def train_step(self, data):
        logs = super().train_step(data)
        for weight in self.trainable_variables:
            weight.assign_add(keras.ops.full(weight.shape, 1e-3))
        return logs


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Silent, "Silent.train_step reports no 'loss'"),
        (Adversarial, r"self\.optimizer alone \(second_optimizer\)"),
        (TwoOptimizers, "TwoOptimizers.compile does not take optimizer"),
        (Unseeded, "Two steps of Unseeded from one state on one batch differ"),
        (Wavering, "Two steps of Wavering from one state"),
        (Remembering, "Two steps of Remembering from one state"),
    ],
)
def test_a_step_that_cannot_be_searched_is_refused_in_a_line(cls, message):
    with pytest.raises(ValueError, match=message) as caught:
        tickets(as_keras(dense(), cls))
    assert "\n" not in str(caught.value)


def test_what_a_step_assigns_to_weights_obeys_their_masks():
    for ticket in tickets(as_keras(dense(), Assigning), levels=1):
        assert obeys(ticket.masks, ticket.trained)
        moved = (
            ticket.trained["dense/bias"] - ticket.start.weights["dense/bias"]
        )
        assert np.all(moved != 0)


class Holding(keras.Model):
    """What Keras cannot copy: its argument is no plain value."""

    def __init__(self, top):
        super().__init__()
        self.top = top

    def call(self, x):
        return self.top(x)

    def train_step(self, data):
        return super().train_step(data)


def test_a_model_that_cannot_be_copied_says_what_it_lacks():
    model = called(Holding(keras.Sequential([L.Flatten(), L.Dense(3)])), (6, 6))
    with pytest.raises(ValueError, match="Give it get_config and build"):
        tickets(model)


@keras.saving.register_keras_serializable("tests")
class Idle(AsKeras):
    """Changes nothing, which tells its step from Keras'."""

    def train_step(self, data):
        x, y = data
        return {"loss": self.compute_loss(x, y, self(x))}


def test_a_narrower_network_trains_by_the_same_step():
    trainer = toy.trainer(as_keras(dense(), Idle), length="2it")
    job = job_of(trainer)
    architecture = masking.architecture_of(trainer.model)
    ticket = Ticket(1, Masks(job.masks), job.start, architecture=architecture)
    small = controls.small_dense(ticket, 0)
    made = Job(small.start, small.masks, architecture=small.architecture)
    (run,) = trainer.train([made])
    assert toy.same(run.trained, small.start.weights)


def test_a_network_that_cannot_be_narrowed_is_refused_first():
    with pytest.raises(ValueError, match="Leave out the control 'small_dense'"):
        TicketSearch(denoising(), controls=["small_dense"])
