"""The paper's "Resnet-18" on CIFAR-10: Frankle & Carbin 2019, Sec. 4, Fig. 8.

`tf-lottery run resnet_18_cifar10 --scale paper --run_dir runs/resnet_18`

Its other learning rates: `--set learning_rate=0.1 --set warmup=0it`, 0.01
likewise. Pruned layer by layer (App. I.1): `--set allocation=layerwise`.
"""

from tf_lottery.experiment.config import Config

PAPER = Config(
    model="resnet_18",
    dataset="cifar10",
    augmentation="flip_crop",
    optimizer="sgd",
    learning_rate=0.03,
    momentum=0.9,
    warmup="20000it",
    milestones=("20000it", "25000it"),
    weight_decay=1e-4,
    batch_size=128,
    length="30000it",
    evaluate_every=500,  # The paper does not say; it reports 10K, 20K, 30K.
    levels=16,
    allocation="global",
    rate=0.2,
    rates={"*shortcut*": 0.0, "output": 0.0},
    replicates=3,
    controls=("reinit", "shuffle"),
)

# Coarser: two large rounds, and training too short for a verdict.
QUICK = PAPER.replace(
    {
        "length": "150it",
        "warmup": "100it",
        "milestones": ("100it", "125it"),
        "evaluate_every": 50,
        "levels": 2,
        "rate": 0.5,
        "replicates": 1,
        "controls": ("reinit",),
    }
)

SCALES = {"quick": QUICK, "paper": PAPER}
