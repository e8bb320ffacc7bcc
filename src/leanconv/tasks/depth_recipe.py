"""A recipe for joint depth upsampling: everything that decides how a network learns to enlarge depth maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from leanconv.errors import unknown
from leanconv.tasks.training_recipe import TrainingRecipe

FACTORS = (4, 8, 16)
SAMPLINGS = ("centre", "bicubic")
NETWORKS = ("ddf_up_net", "pac_net")


@dataclass(frozen=True, kw_only=True)
class DepthRecipe(TrainingRecipe):
    """How one network learns to enlarge depth maps with the help of a colour image.

    Besides the keys of every `TrainingRecipe`:

    Attributes:
        model: ddf_up_net or pac_net.
        data: depth:PATH or nyu:FILE.mat.
        factor: How many times the depth maps are enlarged: 4, 8 or 16.
        crop: Height and width in pixels of the parts of images that are trained on, a multiple of the factor
            that fits into every training image.
        crops: How many of them are taken of each image in an epoch.
        units_per_metre: How many units of the depth maps make a metre; by default what the names of the files say.
        sampling: How the low resolution comes about: centre (a pixel of each cell) or bicubic.

    Raises:
        ValueError: a value has the wrong type or breaks a rule; the message names key, rule and value.

    >>> DepthRecipe(data="depth:pairs", factor=8).model
    'ddf_up_net'
    """

    task: ClassVar[str] = "depth"
    sources: ClassVar[tuple[str, ...]] = ("depth:PATH", "nyu:FILE.mat")
    compared: ClassVar[str] = "model"

    model: str = "ddf_up_net"
    data: str = ""
    epochs: int = 1500
    batch_size: int = 8
    optimizer: str = "adam"
    lr: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "steps"
    decay_epochs: tuple[int, ...] = (1000, 1350)
    warmup_epochs: int = 0
    factor: int = 4
    crop: int = 256
    crops: int = 1
    units_per_metre: float | None = None
    sampling: str = "centre"

    def check_own(self) -> None:
        for key in ("operator", "where", "pretrained"):
            if (value := getattr(self, key)) != (default := getattr(TrainingRecipe, key)):
                raise ValueError(f"recipe key {key!r} must be {default!r} for depth, whose networks take no operator "
                                 f"and have no published weights, got {value!r}")
        if self.factor not in FACTORS:
            raise ValueError(f"recipe key 'factor' must be one of {', '.join(map(str, FACTORS))}, got {self.factor}")
        if self.crop < self.factor or self.crop % self.factor:
            raise ValueError(f"recipe key 'crop' must be a multiple of factor ({self.factor}), got {self.crop}")
        if self.crops < 1:
            raise ValueError(f"recipe key 'crops' must be at least 1, got {self.crops}")
        if self.units_per_metre is not None and not 0 < self.units_per_metre < float("inf"):
            raise ValueError(f"recipe key 'units_per_metre' must be above 0, got {self.units_per_metre}")
        if self.sampling not in SAMPLINGS:
            raise unknown("sampling in the recipe", self.sampling, SAMPLINGS)
        if self.model not in NETWORKS:
            raise unknown("model in the recipe", self.model, NETWORKS)

    @property
    def subject(self) -> tuple[str, ...]:
        return self.model, f"x{self.factor}"
