"""Times a training loop tuned by hand in PyTorch.

What a careful user of PyTorch would write: the data a tensor in memory, an
order drawn once an epoch, batches by `index_select`, Adam fused, gradients set
to none, masks multiplied into the kernels before each step.

Needs PyTorch and NumPy; neither TensorFlow nor tf_lottery.
"""

import pathlib
import time
from collections.abc import Iterator
from typing import Any

import workload

WARM_UP = 200  # steps


def train(steps: int, mnist: pathlib.Path) -> dict[str, Any]:
    """Times the loop on LeNet-300-100 with masks.

    Args:
        steps: Steps to time, after WARM_UP.
        mnist: What `workload.write_mnist` wrote.
    """
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 300),
        torch.nn.ReLU(),
        torch.nn.Linear(300, 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 10),
    )
    kernels = [p for p in model.parameters() if p.ndim == 2]
    masks = [(torch.rand_like(k) < workload.DENSITY).float() for k in kernels]
    optimizer = torch.optim.Adam(
        model.parameters(), lr=workload.LEARNING_RATE, fused=True
    )
    loss_of = torch.nn.CrossEntropyLoss()
    batches = _batches(mnist)

    def step() -> None:
        x, y = next(batches)
        with torch.no_grad():
            for kernel, mask in zip(kernels, masks, strict=True):
                kernel.mul_(mask)
        loss = loss_of(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    return {
        "steps_per_second": steps / seconds,
        "versions": {"torch": torch.__version__},
    }


def _batches(mnist: pathlib.Path) -> Iterator[tuple[Any, Any]]:
    import torch

    images, labels = workload.read_mnist(mnist)
    x = torch.from_numpy(images).reshape(len(images), -1).float().div(255)
    y = torch.from_numpy(labels).long()
    while True:
        order = torch.randperm(len(x))
        for part in order.split(workload.BATCH_SIZE):
            if len(part) == workload.BATCH_SIZE:
                yield x.index_select(0, part), y.index_select(0, part)
