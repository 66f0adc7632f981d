"""VGG-19 on CIFAR-10: Frankle & Carbin 2019, Sec. 4, Fig. 7.

`tf-lottery run vgg_19_cifar10 --scale paper --run_dir runs/vgg_19`

Its other learning rates: `--set learning_rate=0.1 --set warmup=0it`, 0.01
likewise. Pruned layer by layer (App. I.1): `--set allocation=layerwise`.
"""

from tf_lottery.experiment.config import Config

PAPER = Config(
    model="vgg_19",
    dataset="cifar10",
    augmentation="flip_crop",
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.9,
    warmup="10000it",
    milestones=("80ep", "120ep"),
    weight_decay=1e-4,
    batch_size=64,
    length="160ep",  # 112,480 steps: the paper's 112K.
    evaluate_every=1000,  # The paper does not say; it reports 30K, 60K, 112K.
    levels=24,
    allocation="global",
    rate=0.2,
    rates={"output": 0.0},
    replicates=3,
    controls=("reinit", "shuffle"),
)

# Coarser: one large round, and training too short for a verdict.
QUICK = PAPER.replace(
    {
        "length": "30it",
        "warmup": "10it",
        "milestones": ("20it", "25it"),
        "evaluate_every": 15,
        "levels": 1,
        "rate": 0.5,
        "replicates": 1,
        "controls": ("reinit",),
    }
)

SCALES = {"quick": QUICK, "paper": PAPER}
