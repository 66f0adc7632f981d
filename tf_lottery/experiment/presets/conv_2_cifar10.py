"""Conv-2 on CIFAR-10: Frankle & Carbin 2019, Sec. 3, Figs. 2 and 5.

`tf-lottery run conv_2_cifar10 --scale paper --run_dir runs/conv_2`

With dropout, Fig. 6: `--set 'model_options={"dropout": 0.5}'`, three times the
length and `--set learning_rate=3e-4` (App. H.5).
"""

from tf_lottery.experiment.config import Config

PAPER = Config(
    model="conv_2",
    dataset="cifar10",
    optimizer="adam",
    learning_rate=2e-4,
    batch_size=60,
    length="20000it",
    levels=21,
    rate=0.2,
    rates={"conv": 0.1, "output": 0.1},
    replicates=5,
    controls=("reinit*3",),
)

# Coarser: two large rounds, and training too short for a verdict.
QUICK = PAPER.replace(
    {
        "length": "300it",
        "evaluate_every": 100,
        "levels": 2,
        "rate": 0.5,
        "rates": {"conv": 0.25, "output": 0.25},
        "replicates": 1,
        "controls": ("reinit",),
    }
)

SCALES = {"quick": QUICK, "paper": PAPER}
