"""Times open_lth's own training loop.

open_lth (github.com/facebookresearch/open_lth) is not part of this project and
none of its code is here. It dates from 2020; four stand-ins, none of which adds
work to a step, let it run on today's NumPy and PyTorch without a download:
`np.product`; its MNIST download; PyTorch's DistributedDataParallel, whose bases
no longer fit open_lth's wrapper; and operators of torchvision that it never
calls. Its model, PrunedModel, DataLoader, optimizer and train() are its own.

Needs PyTorch, NumPy and Pillow; neither TensorFlow nor tf_lottery. Where
torchvision is missing, its three transforms are replaced by lighter ones, which
flatters open_lth (1.5 times faster where this was written); the versions
printed say so.
"""

import importlib
import pathlib
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import workload

WARM_UP = 50  # steps; nothing is compiled, so there is little to wait for.


def train(
    steps: int, mnist: pathlib.Path, repository: pathlib.Path
) -> dict[str, Any]:
    """Times the loop of open_lth on mnist_lenet_300_100 with masks.

    Args:
        steps: Steps to time, after WARM_UP.
        mnist: What `workload.write_mnist` wrote.
        repository: A checkout of open_lth.
    """
    import torch

    _stand_in_for_what_is_gone(mnist)
    sys.path.insert(0, str(repository))
    speed = _time_train(steps)
    return {
        "steps_per_second": speed,
        "versions": {
            "torch": torch.__version__,
            "torchvision": sys.modules["torchvision"].__version__,
        },
    }


def _time_train(steps: int) -> float:
    # First, or the imports of open_lth go round in a circle.
    importlib.import_module("lottery.desc")
    import datasets.registry
    import platforms.local
    import platforms.platform
    from foundations import hparams
    from training import train as open_lth

    platforms.platform._PLATFORM = platforms.local.Platform()
    loader = datasets.registry.get(
        hparams.DatasetHparams(
            dataset_name="mnist", batch_size=workload.BATCH_SIZE
        )
    )
    recipe = hparams.TrainingHparams(
        optimizer_name="adam",
        lr=workload.LEARNING_RATE,
        training_steps=f"{WARM_UP + steps}it",
        data_order_seed=0,
    )
    times: dict[int, float] = {}

    def read_clock(_: Any, step: Any, *__: Any) -> None:
        times[step.iteration] = time.perf_counter()

    with tempfile.TemporaryDirectory() as output:
        open_lth.train(recipe, _pruned_lenet(), loader, output, [read_clock])
    return steps / (times[WARM_UP + steps] - times[WARM_UP])


def _pruned_lenet() -> Any:
    import models.registry
    import torch
    from foundations import hparams
    from pruning.mask import Mask
    from pruning.pruned_model import PrunedModel

    torch.manual_seed(0)
    model = models.registry.get(
        hparams.ModelHparams("mnist_lenet_300_100", "kaiming_normal", "uniform")
    )
    ones = Mask.ones_like(model)
    masks = {
        k: (torch.rand(v.shape) < workload.DENSITY).int()
        for k, v in ones.items()
    }
    return PrunedModel(model, Mask(masks))


def _stand_in_for_what_is_gone(mnist: pathlib.Path) -> None:
    import numpy as np
    import torch

    np.product = np.prod  # type: ignore[attr-defined]
    torch.nn.parallel.DistributedDataParallel = type(  # type: ignore[misc]
        "DistributedDataParallel", (torch.nn.Module,), {}
    )
    torchvision = _installed_torchvision() or _light_torchvision()
    torchvision.datasets.MNIST = lambda **_: _load_mnist(mnist)
    sys.modules["torchvision"] = torchvision


def _installed_torchvision() -> Any:
    # PyPI's torchvision is built for CUDA: beside a CPU build of PyTorch its
    # compiled operators do not load, and this module of it needs them.
    unused = "torchvision._meta_registrations"
    sys.modules[unused] = types.ModuleType(unused)
    try:
        import torchvision
    except ImportError:
        return None
    return torchvision


def _light_torchvision() -> Any:
    import torch

    module: Any = types.ModuleType("torchvision")
    module.__version__ = "missing: light stand-ins, in open_lth's favour"
    module.transforms = types.SimpleNamespace(
        Compose=_Compose, Normalize=_Normalize, ToTensor=lambda: _to_tensor
    )
    module.datasets = types.SimpleNamespace(CIFAR10=object)
    module.models = types.SimpleNamespace(ResNet=torch.nn.Module)
    return module


def _load_mnist(path: pathlib.Path) -> types.SimpleNamespace:
    import torch

    images, labels = workload.read_mnist(path)
    return types.SimpleNamespace(
        data=torch.from_numpy(images),
        targets=torch.from_numpy(labels).long(),
    )


class _Compose:
    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self._transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self._transforms:
            image = transform(image)
        return image


def _to_tensor(image: Any) -> Any:
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.array(image))
    return pixels[None].to(torch.float32).div(255)  # [1, height, width]


class _Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        import torch

        self._mean = torch.tensor(mean)[:, None, None]
        self._std = torch.tensor(std)[:, None, None]

    def __call__(self, image: Any) -> Any:
        return image.sub(self._mean).div_(self._std)
