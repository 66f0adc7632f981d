"""A ticket is masks and the weights they restart from, and one file."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import toy

from tf_lottery import masking
from tf_lottery.tickets import Ticket
from tf_lottery.training import State


def make(model=None, step=0, density=0.4):
    trainer = toy.trainer(model or toy.mlp())
    origin = trainer.state
    ones = masking.get_masks(trainer.model)
    if step:
        origin = toy.train(trainer, origin, ones, capture=step).captured[0]
    return Ticket(
        level=3,
        masks=toy.random_masks(trainer.model, density),
        origin=origin,
        architecture=masking.architecture_of(trainer.model),
        metrics={"test_accuracy": 0.5},
        provenance={"seed": 0},
    )


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
        loaded.build(trained=True)


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
        "print(json.loads(f['header'].tobytes())['shapes']['dense/kernel'],"
        "np.unpackbits(f['masks/dense/kernel'], count=576).sum())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "t")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kept = ticket.masks.counts["dense/kernel"]
    assert out == f"[36, 16] {kept}\n"


def test_a_truncated_file_is_refused(ticket, tmp_path):
    ticket.save(tmp_path / "t")
    whole = (tmp_path / "t").read_bytes()
    for length in range(0, len(whole), 501):
        (tmp_path / "t").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is no ticket file, or a damaged"):
            Ticket.load(tmp_path / "t")


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
    monkeypatch.setattr("tf_lottery.tickets._FORMAT", 99)
    ticket.save(tmp_path / "t")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format 99.*Update tf_lottery"):
        Ticket.load(tmp_path / "t")


def test_a_header_that_lies_about_its_masks_is_refused(
    ticket, tmp_path, monkeypatch
):
    lying = dataclasses.replace(ticket)
    monkeypatch.setattr(
        np, "packbits", lambda m: np.zeros(m.size // 8 + 5, "uint8")
    )
    lying.save(tmp_path / "t")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="another size"):
        Ticket.load(tmp_path / "t")


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
