"""What every recipe of a training has, whatever the task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml

from leanconv.errors import unknown
from leanconv.files import write
from leanconv.tasks.rules import check, converted

CARRIED = Path(__file__).parents[1] / "recipes"
DEFAULT_TASK = "classification"
# A test is one process, whatever the training was; nothing is varied, and weights are a checkpoint's.
TESTED: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto", "augment": False, "weights": None,
                          "pretrained": False}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How one network is trained on one data set: flat, on disk as YAML, every value checked when it is made.

    Each task has its own kind of recipe, with further keys.

    Attributes:
        model: Name of what is trained.
        operator: What replaces the convolutions: "dense" for nothing, or a name with settings as "tied:blocks=2".
        where: Pattern for the names of the layers to replace; empty for the operator's published scope.
        data: Source of images, in one of the forms of `sources`.
        epochs: Passes over the training images.
        batch_size: Images per step, over all processes together.
        optimizer: Name of a timm optimiser: "sgd" is with Nesterov momentum, "momentum" without.
        lr: Highest learning rate, after the warm-up.
        momentum: Of the optimiser, where it has one.
        weight_decay: Of the weights; biases and the parameters of norms are left out.
        weight_decay_all: Whether biases and the parameters of norms decay too.
        bias_lr: Learning rate of the biases, those of norms too, in multiples of that of the weights.
        schedule: Course of the learning rate after the warm-up: cosine, steps or constant.
        min_lr: With the schedule "cosine", the learning rate at its end.
        cooldown_epochs: With the schedule "cosine", epochs after its end, at its last rate, counted among the epochs.
        decay_epochs: With the schedule "steps", the epochs after which the learning rate is multiplied.
        decay_rate: With the schedule "steps", the factor.
        warmup_epochs: Epochs over which the learning rate rises, counted among the epochs.
        warmup_lr: Learning rate at the start of the warm-up; by default a hundredth of the highest.
        ema: Decay of the running average of the weights, which is then what is tested and kept; 0 is off.
        clip_norm: Largest norm of the gradient of a step; 0 is no limit.
        precision: Numbers used in training: fp32, or bf16 where autocast deems it safe.
        accumulate: Steps whose gradients are summed up to one update.
        augment: Whether the training images are varied at random, as is usual for the source.
        bad_images: What to do about files of a folder that can't be read: skip, refuse, or leave them unchecked.
        workers: Processes that prepare images, for each training process; 0 prepares them in the process itself.
        accelerator: Where to train: auto (a GPU if there is one), cpu or gpu.
        devices: Processes or GPUs on each machine.
        strategy: How several work together: auto, ddp or fsdp.
        num_nodes: Machines.
        limit: At most so many training and so many test images; 0 for all.
        seed: Of the weights, the order of the images and their augmentation.
        pretrained: Whether to start from the weights that the model's author published.
        weights: Checkpoint of an earlier training (model.safetensors) to start from.
        channels_last: Whether weights and images lie in memory with the channels last.
    """

    task: ClassVar[str]
    sources: ClassVar[tuple[str, ...]]  # forms of `data`
    compared: ClassVar[str] = "operator"  # the key in which trainings that are compared differ, besides the seed

    model: str = "cifar_resnet20"
    operator: str = "dense"
    where: str = ""
    data: str = "digits"
    epochs: int = 8
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    weight_decay_all: bool = False
    bias_lr: float = 1.0
    schedule: str = "cosine"
    min_lr: float = 0.0
    cooldown_epochs: int = 0
    decay_epochs: tuple[int, ...] = ()
    decay_rate: float = 0.1
    warmup_epochs: int = 1
    warmup_lr: float | None = None
    ema: float = 0.0
    clip_norm: float = 0.0
    precision: str = "fp32"
    accumulate: int = 1
    augment: bool = True
    bad_images: str = "skip"
    workers: int = 0
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    num_nodes: int = 1
    limit: int = 0
    seed: int = 0
    pretrained: bool = False
    weights: Path | None = None
    channels_last: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, converted(field.name, str(field.type), getattr(self, field.name)))
        check(self)
        self.check_own()

    def check_own(self) -> None:
        """Goes through the rules of the task's own keys.

        Raises:
            ValueError: the first one that is broken.
        """

    @property
    def subject(self) -> tuple[str, ...]:
        """What is trained, in short: it tells trainings of different networks apart."""
        return (self.model,)

    @property
    def processes(self) -> int:
        """How many train together."""
        return self.devices * self.num_nodes

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Makes a recipe from its keys and values, as they stand in a file.

        Raises:
            ValueError: a key does not exist (the nearest one is named), or a value breaks its rule.
        """
        given = dict(values)
        if (task := given.pop("task", cls.task)) != cls.task:
            raise ValueError(f"recipe key 'task' must be {cls.task!r} here, got {task!r}")
        names = [field.name for field in fields(cls)]
        for key in given:
            if key not in names:
                raise unknown("recipe key", str(key), names)
        return cls(**given)

    @classmethod
    def load(cls, source: str | Path, **overrides: Any) -> Self:
        """Reads a recipe from YAML; keys that the file lacks have their defaults.

        Args:
            source: path of the file, or the name of a recipe that leanconv carries (`recipe_names`).
            overrides: values that take the place of the file's.

        Raises:
            ValueError: there is no such file or name, or the file isn't a recipe; a key or a value is wrong.

        """
        return cls.of({**read(source), **overrides})

    def save(self, path: str | Path) -> None:
        """Writes all keys as YAML.

        Raises:
            OSError: the file can't be written.
        """
        write(Path(path), yaml.safe_dump(self.plain(), sort_keys=False))

    def plain(self) -> dict[str, Any]:
        """All keys, with values that YAML and JSON know, and which task it is where that isn't the usual one."""
        task = {} if self.task == DEFAULT_TASK else {"task": self.task}
        return task | {
            key: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


def read(source: str | Path) -> dict[str, Any]:
    """The keys of a recipe as they stand in its file.

    Raises:
        ValueError: there is no such file or name, or the file isn't a recipe.
    """
    path = found(Path(source))
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read the recipe {path}: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"the recipe {path} must be keys with values, got {type(values).__name__} {values!r:.80}")
    return values


def recipe_names() -> list[str]:
    """The recipes that leanconv carries: one for each published training that it knows.

    >>> [name for name in recipe_names() if name.startswith("imagenet_ddf")]
    ['imagenet_ddf_resnet50', 'imagenet_ddf_resnet50_released']
    """
    return sorted(path.stem for path in CARRIED.glob("*.yaml"))


def found(source: Path) -> Path:
    """The file at a path or, for a single word that is no file, the recipe of that name.

    Raises:
        ValueError: there is no recipe of that name.
    """
    if len(source.parts) != 1 or source.suffix in (".yaml", ".yml") or source.is_file():
        return source
    if source.name not in (names := recipe_names()):
        raise unknown("recipe", source.name, names)
    return CARRIED / f"{source.name}.yaml"
