"""What the values of a recipe must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanconv.errors import unknown

if TYPE_CHECKING:
    from leanconv.tasks.recipe import Recipe
    from leanconv.tasks.training_recipe import TrainingRecipe

CHOICES = {
    "schedule": ("cosine", "steps", "constant"),
    "precision": ("fp32", "bf16"),
    "bad_images": ("skip", "refuse", "unchecked"),
    "accelerator": ("auto", "cpu", "gpu"),
    "strategy": ("auto", "ddp", "fsdp"),
}

COMMON_OPTIMIZERS = ("sgd", "momentum", "adamw")  # known without importing timm, which takes seconds

RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("named", lambda name: name != ""),
    "image_size": ("at least 1", lambda size: size is None or size >= 1),
    "mean": ("from 0 to 1", lambda means: all(0 <= mean <= 1 for mean in means)),
    "std": ("above 0", lambda stds: all(0 < std < float("inf") for std in stds)),
    "epochs": ("at least 1", lambda count: count >= 1),
    "batch_size": ("at least 1", lambda count: count >= 1),
    "lr": ("above 0", lambda rate: 0 < rate < float("inf")),
    "momentum": ("at least 0 and below 1", lambda share: 0 <= share < 1),
    "weight_decay": ("at least 0", lambda decay: 0 <= decay < float("inf")),
    "bias_lr": ("above 0", lambda factor: 0 < factor < float("inf")),
    "min_lr": ("at least 0", lambda rate: rate >= 0),
    "cooldown_epochs": ("at least 0", lambda count: count >= 0),
    "decay_epochs": ("rising, from 1", lambda epochs: all(a < b for a, b in zip((0, *epochs), epochs, strict=False))),
    "decay_rate": ("above 0 and at most 1", lambda rate: 0 < rate <= 1),
    "warmup_epochs": ("at least 0", lambda count: count >= 0),
    "warmup_lr": ("at least 0", lambda rate: rate is None or rate >= 0),
    "label_smoothing": ("at least 0 and below 1", lambda share: 0 <= share < 1),
    "mixup": ("at least 0", lambda alpha: 0 <= alpha < float("inf")),
    "cutmix": ("at least 0", lambda alpha: 0 <= alpha < float("inf")),
    "ema": ("at least 0 and below 1", lambda decay: 0 <= decay < 1),
    "clip_norm": ("at least 0", lambda norm: 0 <= norm < float("inf")),
    "crop_area": ("two rising shares above 0 and at most 1", lambda areas: rising_pair(areas) and areas[1] <= 1),
    "crop_aspect": ("two rising numbers above 0", lambda aspects: rising_pair(aspects)),
    "color_jitter": ("from 0 to 1", lambda share: 0 <= share <= 1),
    "erasing": ("from 0 to 1", lambda probability: 0 <= probability <= 1),
    "erasing_count": ("at least 1", lambda count: count >= 1),
    "accumulate": ("at least 1", lambda count: count >= 1),
    "workers": ("at least 0", lambda count: count >= 0),
    "devices": ("at least 1", lambda count: count >= 1),
    "num_nodes": ("at least 1", lambda count: count >= 1),
    "limit": ("at least 0", lambda count: count >= 0),
    "seed": ("at least 0", lambda seed: seed >= 0),
}

# What varies pictures in files.
FOR_FOLDERS = ("crop_area", "crop_aspect", "color_jitter", "rand_augment", "erasing", "erasing_count")


def rising_pair(numbers: tuple[float, ...]) -> bool:
    return len(numbers) == 2 and 0 < numbers[0] <= numbers[1] < float("inf")


def converted(key: str, hint: str, value: Any) -> Any:
    """A value in its strict form: a list as a tuple, a string as a path, a whole number as a float.

    Args:
        key: of the recipe.
        hint: the type in source form: "int", "float", "bool", "str", "int | None", "Path | None", "tuple[int, ...]",
            "tuple[float, ...]".
        value: what came.

    Raises:
        ValueError: the value isn't of that type.
    """
    kind = hint.removesuffix(" | None")
    if value is None and kind != hint:
        return None
    match kind, value:
        case ("bool", bool()) | ("str", str()) | ("float", float()) | ("Path", Path()):
            return value
        case "int", int() if not isinstance(value, bool):
            return value
        case "float", int() if not isinstance(value, bool):
            return float(value)
        case "float", str():  # YAML reads 1e-4, without a point, as text
            try:
                return float(value)
            except ValueError:
                pass
        case "Path", str() if value:
            return Path(value)
        case "tuple[int, ...]", list() | tuple() if all(type(item) is int for item in value):
            return tuple(value)
        case "tuple[float, ...]", list() | tuple():
            return tuple(converted(key, "float", item) for item in value)
    raise ValueError(f"recipe key {key!r} must be of type {hint}, got {value!r}")


def check(recipe: TrainingRecipe) -> None:
    """Goes through the rules of all recipes, and through those for single keys of any task.

    Raises:
        ValueError: the first one that is broken.
    """
    for key, choices in CHOICES.items():
        if hasattr(recipe, key) and getattr(recipe, key) not in choices:
            raise unknown(f"{key} in the recipe", getattr(recipe, key), choices)
    for key, (rule, holds) in RANGES.items():
        if hasattr(recipe, key) and not holds(value := getattr(recipe, key)):
            raise ValueError(f"recipe key {key!r} must be {rule}, got {value!r}")
    check_source(recipe.data, recipe.sources)
    check_operator(recipe.operator)
    check_optimizer(recipe.optimizer)
    check_together(recipe)


def check_classification(recipe: Recipe) -> None:
    """Goes through the rules of classification's own keys.

    Raises:
        ValueError: the first one that is broken.
    """
    check_rand_augment(recipe.rand_augment)
    if len(recipe.mean) != len(recipe.std):
        raise ValueError(f"recipe keys 'mean' and 'std' must have equal lengths, got {recipe.mean} and {recipe.std}")
    if recipe.rand_augment and recipe.color_jitter:
        raise ValueError(f"recipe key 'color_jitter' must be 0 with rand_augment, got {recipe.color_jitter}")
    for key in FOR_FOLDERS:
        if getattr(recipe, key) != getattr(type(recipe), key) and not recipe.data.startswith("imagefolder:"):
            raise ValueError(
                f"recipe key {key!r} needs data of the form 'imagefolder:PATH', got {getattr(recipe, key)!r} for "
                f"{recipe.data!r}"
            )
    if (recipe.mixup or recipe.cutmix) and recipe.batch_size % (2 * recipe.processes):
        raise ValueError(
            f"recipe key 'batch_size' must be a multiple of {2 * recipe.processes} (twice the processes, as mixup "
            f"pairs images), got {recipe.batch_size}"
        )


def check_source(data: str, sources: tuple[str, ...]) -> None:
    name, colon, path = data.partition(":")
    if not data:
        raise ValueError(f"recipe key 'data' must be given, in one of the forms {', '.join(sources)}")
    if name not in [source.partition(":")[0] for source in sources]:
        raise unknown("data source", data, sources)
    form = next(source for source in sources if source.startswith(name))
    if (":" in form) != bool(colon and path):
        raise ValueError(f"recipe key 'data' must be of the form {form!r}, got {data!r}")


def check_operator(operator: str) -> None:
    if operator != "dense":
        from leanconv.surgery import parse_operator

        parse_operator(operator)


def check_optimizer(name: str) -> None:
    if name not in COMMON_OPTIMIZERS:
        from timm.optim import list_optimizers

        if name not in (names := list_optimizers()):
            raise unknown("optimizer", name, names)


def check_rand_augment(description: str) -> None:
    if description:
        from timm.data.auto_augment import rand_augment_transform

        try:
            rand_augment_transform(description, {"translate_const": 1})  # earlier versions of timm need some parameter
        except (AssertionError, ValueError, KeyError) as error:
            raise ValueError(
                "recipe key 'rand_augment' must be in timm's notation, such as 'rand-m7-mstd0.5-inc1', "
                f"got {description!r}"
            ) from error


def check_together(recipe: TrainingRecipe) -> None:
    """The rules that look at more than one key."""
    if recipe.warmup_epochs > recipe.epochs:
        raise ValueError(
            f"recipe key 'warmup_epochs' must be at most epochs ({recipe.epochs}), got {recipe.warmup_epochs}"
        )
    if recipe.warmup_lr is not None and recipe.warmup_lr > recipe.lr:
        raise ValueError(f"recipe key 'warmup_lr' must be at most lr ({recipe.lr}), got {recipe.warmup_lr}")
    if recipe.min_lr > recipe.lr:
        raise ValueError(f"recipe key 'min_lr' must be at most lr ({recipe.lr}), got {recipe.min_lr}")
    for key in ("min_lr", "cooldown_epochs"):
        if (value := getattr(recipe, key)) and recipe.schedule != "cosine":
            raise ValueError(f"recipe key {key!r} needs the schedule 'cosine', got {value} for {recipe.schedule!r}")
    if recipe.cooldown_epochs and recipe.warmup_epochs + recipe.cooldown_epochs >= recipe.epochs:
        raise ValueError(
            f"recipe key 'cooldown_epochs' must leave some of the {recipe.epochs} epochs after {recipe.warmup_epochs} "
            f"of warm-up, got {recipe.cooldown_epochs}"
        )
    if recipe.decay_epochs and recipe.schedule != "steps":
        raise ValueError(
            f"recipe key 'decay_epochs' must be empty with the schedule {recipe.schedule!r}, got {recipe.decay_epochs}"
        )
    if recipe.decay_epochs and recipe.decay_epochs[-1] >= recipe.epochs:
        raise ValueError(
            f"recipe key 'decay_epochs' must be below epochs ({recipe.epochs}), got {recipe.decay_epochs}"
        )
    if recipe.schedule == "steps" and not recipe.decay_epochs:
        raise ValueError("recipe key 'decay_epochs' must name at least one epoch for the schedule 'steps', got none")
    if recipe.batch_size % recipe.processes:
        raise ValueError(
            f"recipe key 'batch_size' must be a multiple of {recipe.processes} (the processes), got {recipe.batch_size}"
        )
    if recipe.ema and recipe.strategy == "fsdp":
        raise ValueError(f"recipe key 'ema' must be 0 with the strategy 'fsdp', got {recipe.ema}")
    if recipe.strategy == "fsdp" and recipe.accelerator == "cpu":
        raise ValueError("recipe key 'strategy' must be 'auto' or 'ddp' on the cpu, got 'fsdp'")
    if recipe.pretrained and recipe.weights:
        raise ValueError(f"recipe key 'weights' must be empty when pretrained is true, got {str(recipe.weights)!r}")
