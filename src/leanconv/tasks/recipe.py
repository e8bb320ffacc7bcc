"""A recipe for classification: everything that decides how one network learns to tell images apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from leanconv.tasks.rules import check_classification
from leanconv.tasks.training_recipe import TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainingRecipe):
    """How one network is trained to classify the images of one data set.

    Besides the keys of every `TrainingRecipe`:

    Attributes:
        model: Name of a timm network, leanconv's own among them, or "module:callable".
        data: Source of images: digits, cifar10, cifar100, fashion-mnist, imagefolder:PATH or arrays:FILE.npz.
        data_root: Folder that holds downloaded data sets; by default one in the user's cache.
        image_size: Height and width in pixels that the network sees; by default the source's own.
        mean: Taken off each channel, with pixels in 0..1; by default the source's own, ImageNet's for folders.
        std: Divides each channel after that; by default as the mean is.
        label_smoothing: Share of the target that is spread over all classes.
        mixup: Alpha of mixup; 0 is off.
        cutmix: Alpha of CutMix; 0 is off. With mixup on too, each batch gets one or the other.
        crop_area: Smallest and largest share of a picture that a random crop takes; for folders, as the next five.
        crop_aspect: Smallest and largest width of such a crop in multiples of its height.
        color_jitter: Brightness, contrast and saturation change by up to this share; 0 is off.
        rand_augment: RandAugment in timm's notation, as "rand-m7-mstd0.5-inc1"; empty is off.
        erasing: Probability that parts of an image are replaced by noise; 0 is off.
        erasing_count: Parts of an image that are replaced, at most.

    Raises:
        ValueError: a value has the wrong type or breaks a rule; the message names key, rule and value.

    >>> Recipe(operator="tied:blocks=2", epochs=3).epochs
    3
    >>> Recipe(epochs=0)
    Traceback (most recent call last):
    ...
    ValueError: recipe key 'epochs' must be at least 1, got 0
    >>> Recipe.load("cifar10_resnet20", seed=1).epochs
    164
    """

    task: ClassVar[str] = "classification"
    sources: ClassVar[tuple[str, ...]] = (
        "digits", "cifar10", "cifar100", "fashion-mnist", "imagefolder:PATH", "arrays:FILE.npz",
    )  # fmt: skip

    data_root: Path | None = None
    image_size: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop_area: tuple[float, ...] = (0.08, 1.0)
    crop_aspect: tuple[float, ...] = (0.75, 1.3333)
    color_jitter: float = 0.0
    rand_augment: str = ""
    erasing: float = 0.0
    erasing_count: int = 1

    def check_own(self) -> None:
        check_classification(self)
