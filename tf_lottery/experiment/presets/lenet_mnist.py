"""LeNet-300-100 on MNIST: Frankle & Carbin 2019, Sec. 2, Figs. 1, 3, 4.

`tf-lottery run lenet_mnist --scale paper --run_dir runs/lenet_mnist`
"""

from tf_lottery.experiment.config import Config

PAPER = Config(
    model="lenet_300_100",
    dataset="mnist",
    optimizer="adam",
    learning_rate=1.2e-3,  # App. G.2: the more accurate of the two fastest.
    batch_size=60,
    length="50000it",
    levels=21,  # To 1.0 % of the weights.
    rate=0.2,
    # App. G.4: 1,000 of 266,200 weights reach diminishing returns sooner.
    rates={"output": 0.1},
    replicates=5,
    controls=("reinit*3",),
)

# Coarser: fewer, larger rounds; training ends soon after the dense network's
# early-stop step. Level 3 has the paper's 21 % of the weights.
QUICK = PAPER.replace(
    {
        "length": "8000it",
        "levels": 4,
        "rate": 0.4,
        "rates": {"output": 0.2},
        # They find a winning ticket in over 99 % of runs; most take 5.
        "replicates": "5:8",
        "controls": ("reinit",),
    }
)

SCALES = {"quick": QUICK, "paper": PAPER}
