"""Every open set: the names of its members, and where each is defined.

A new member is one file and one line here. Members are imported on first use,
so `tf-lottery list`, `--help` and shell completion import no TensorFlow.
Wherever a name of a criterion, allocation or schedule is accepted, an object
is accepted too.
"""

from tf_lottery.core.registry import Registry

PRESETS = Registry(
    "tf_lottery.experiment.presets",
    {
        "lenet_mnist": "lenet_mnist:SCALES",
        "conv_2_cifar10": "conv_2_cifar10:SCALES",
        "conv_4_cifar10": "conv_4_cifar10:SCALES",
        "conv_6_cifar10": "conv_6_cifar10:SCALES",
        "resnet_18_cifar10": "resnet_18_cifar10:SCALES",
        "vgg_19_cifar10": "vgg_19_cifar10:SCALES",
    },
)
"""Experiments, named network_dataset: `{"quick": Config, "paper": Config}`."""

MODELS = Registry(
    "tf_lottery.models",
    {
        "lenet_300_100": "lenet:lenet_300_100",
        "conv_2": "conv:conv_2",
        "conv_4": "conv:conv_4",
        "conv_6": "conv:conv_6",
        "resnet_18": "resnet:resnet_18",
        "vgg_19": "vgg:vgg_19",
    },
)
"""Networks of the literature: functions that return a Keras model."""

DATASETS = Registry(
    "tf_lottery.data",
    {
        "mnist": "mnist:mnist",
        "fashion_mnist": "tfds:fashion_mnist",
        "cifar10": "tfds:cifar10",
        "cifar100": "tfds:cifar100",
    },
)
"""Data sets: functions from the folder of TensorFlow Datasets to a data set."""

CRITERIA = Registry(
    "tf_lottery.pruning",
    {
        "magnitude": "magnitude:magnitude",
        "small_final": "magnitude:small_final",
        "large_init": "initial:large_init",
        "small_init": "initial:small_init",
        "large_init_large_final": "both_ends:large_init_large_final",
        "magnitude_increase": "both_ends:magnitude_increase",
        "movement": "both_ends:movement",
        "random": "random:random",
    },
)
"""Criteria: functions that score weights, see `pruning.Criterion`.

`magnitude` is the paper's, and `large_final` of Zhou et al. 2019
(arXiv:1905.01067), who named the others.
"""

ALLOCATIONS = Registry(
    "tf_lottery.pruning",
    {
        "layerwise": "allocation:layerwise",
        "global": "allocation:global_",
        "evenly": "allocation:evenly",
        "erk": "allocation:erk",
    },
)
"""How the budget is shared among kernels, see `allocation.Allocation`."""

SCHEDULES = Registry(
    "tf_lottery.pruning",
    {"geometric": "schedule:GEOMETRIC", "one_shot": "schedule:ONE_SHOT"},
)
"""How many weights are left at each level: `schedule.Schedule` objects."""

CONTROLS = Registry(
    "tf_lottery.controls",
    {
        # Other weights under the ticket's masks.
        "reinit": "reinitialized:reinit",
        "reinit_sampled": "reinitialized:reinit_sampled",
        "reinit_sign": "reinitialized:reinit_sign",
        "noise": "noisy:noise",
        # Other masks of the same weights.
        "shuffle": "shuffled:shuffle",
        "shuffle_global": "shuffled:shuffle_global",
        "random_evenly": "random_masks:random_evenly",
        "random_erk": "random_masks:random_erk",
        "initial_magnitude": "scored:initial_magnitude",
        "inverted": "scored:inverted",
        # A narrower dense network with as many weights.
        "small_dense": "small_dense:small_dense",
        # The same ticket, trained on batches in another order.
        "data_order": "data_order:data_order",
    },
)
"""Controls: functions from a ticket and a seed to a ticket that should lose."""

FORMATS = Registry(
    "tf_lottery.export",
    {
        "saved_model": "formats:SAVED_MODEL",
        "sparse_saved_model": "formats:SPARSE_SAVED_MODEL",
        "keras": "formats:KERAS",
        "litert": "formats:LITERT",
        "sparse_litert": "formats:SPARSE_LITERT",
        "onnx": "formats:ONNX",
    },
)
"""Export formats: `export.formats.Format` objects."""

STRATEGIES = Registry(
    "tf_lottery.training.distribution",
    {
        "auto": "strategies:auto",
        "one_device": "strategies:one_device",
        "mirrored": "strategies:mirrored",
        "multi_worker": "strategies:multi_worker",
        "tpu": "strategies:tpu",
    },
)
"""Strategies of `tf.distribute`: functions that create one, or return None."""
