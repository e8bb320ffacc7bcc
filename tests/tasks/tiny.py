"""A network that trains in a moment, with all that makes resuming hard: BatchNorm and dropout."""

from torch import Tensor, nn


class Tiny(nn.Module):
    def __init__(self, num_classes: int, in_chans: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_chans, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)))


class Plain(nn.Module):
    """The same for one process and for several: nothing in it looks at a whole batch or draws at random."""

    def __init__(self, num_classes: int, in_chans: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_chans, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))
