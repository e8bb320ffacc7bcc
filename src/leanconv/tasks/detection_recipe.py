"""A recipe for detection: everything that decides how a detector is trained on one data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from leanconv.errors import unknown
from leanconv.tasks.training_recipe import TrainingRecipe

DETECTORS = ("retinanet", "faster-rcnn", "mask-rcnn", "cascade-rcnn", "cascade-mask-rcnn")
UPSAMPLINGS = ("nearest", "bilinear", "pixel-shuffle", "spatial-ddf", "ddf-up")
NORMS = ("frozen", "batch", "sync")


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(TrainingRecipe):
    """How one detector is trained on one data set. The operator goes into its backbone.

    Besides the keys of every `TrainingRecipe`:

    Attributes:
        model: retinanet, faster-rcnn, mask-rcnn, cascade-rcnn or cascade-mask-rcnn.
        data: coco:PATH, voc:PATH, penn-fudan:PATH or masks:PATH.
        backbone: Network that makes its features: the name of a timm network, leanconv's own among them.
        upsample: How its feature pyramid enlarges: nearest, bilinear, pixel-shuffle, spatial-ddf or ddf-up.
        channels: Of the feature pyramid, and so of everything that reads it.
        norms: What the backbone's norms do: frozen at their statistics, batch, or sync over all processes. By default
            frozen where the backbone starts from weights of its own, with the operator, else batch.
        trainable_stages: Stages of the backbone that learn, counted from its end; with all 4 the stem does too. By
            default 3 where norms are frozen by default, else 4.
        short_sides: Pixels of an image's shorter side, one of them drawn for each training image, the last for tests.
        long_side: Pixels that its longer side has at most.
        flip_test: Whether each test image is seen mirrored too.
        empty: What to do about training images without an object: keep them as negatives, or drop them.
        anchor_size: Side of the smallest anchors in pixels of the resized image.
        detections: How many objects are found in an image at most.
        regions: Of each training image, how many proposals the heads that classify and refine them learn from, at most;
            RetinaNet has none.

    Raises:
        ValueError: a value has the wrong type or breaks a rule; the message names key, rule and value.

    >>> DetectionRecipe(data="coco:coco", backbone="tied_resnet50_s").model
    'faster-rcnn'
    """

    task: ClassVar[str] = "detection"
    sources: ClassVar[tuple[str, ...]] = ("coco:PATH", "voc:PATH", "penn-fudan:PATH", "masks:PATH")

    model: str = "faster-rcnn"
    data: str = ""
    epochs: int = 12
    batch_size: int = 16
    optimizer: str = "momentum"
    lr: float = 0.02
    weight_decay: float = 1e-4
    schedule: str = "steps"
    decay_epochs: tuple[int, ...] = (8, 11)
    warmup_epochs: int = 1
    channels_last: bool = True
    backbone: str = "resnet50"
    upsample: str = "nearest"
    channels: int = 256
    norms: str | None = None
    trainable_stages: int | None = None
    short_sides: tuple[int, ...] = (800,)
    long_side: int = 1333
    flip_test: bool = False
    empty: str = "drop"
    anchor_size: int = 32
    detections: int = 100
    regions: int = 512

    def check_own(self) -> None:
        choices = {"model": DETECTORS, "upsample": UPSAMPLINGS, "norms": (None, *NORMS), "empty": ("keep", "drop")}
        for key, names in choices.items():
            if getattr(self, key) not in names:
                raise unknown(f"{key} in the recipe", getattr(self, key), filter(None, names))
        if self.trainable_stages not in (None, *range(5)):
            raise ValueError(f"recipe key 'trainable_stages' must be from 0 to 4, got {self.trainable_stages}")
        if not self.short_sides or min(self.short_sides) < 1:
            raise ValueError(f"recipe key 'short_sides' must be at least one length from 1, got {self.short_sides}")
        if self.long_side < max(self.short_sides):
            longest = max(self.short_sides)
            raise ValueError(f"recipe key 'long_side' must be at least short_sides ({longest}), got {self.long_side}")
        for key in ("channels", "anchor_size", "detections", "regions"):
            if getattr(self, key) < 1:
                raise ValueError(f"recipe key {key!r} must be at least 1, got {getattr(self, key)}")

    @property
    def subject(self) -> tuple[str, ...]:
        return self.model, self.backbone

    @property
    def test_batch_size(self) -> int:
        """Images that are tested at once, over all processes: masks are of the size of whole photographs."""
        return self.processes if self.masks else self.batch_size

    @property
    def masks(self) -> bool:
        """Whether the detector gives a mask for each object."""
        return "mask" in self.model
