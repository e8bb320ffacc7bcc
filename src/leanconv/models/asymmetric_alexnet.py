"""AlexNet with batch norm and asymmetric convolution blocks (ACNet).

Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.
Ding, Guo, Ding & Han, "ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks",
ICCV 2019, arXiv 1908.03930, section 4.2.

A reading: ACNet's AlexNet isn't published. Without groups and local response norms, with the widths of the AlexNet that
ACNet's authors published later (64, 192, 384, 384, 256), and a batch norm after each convolution. The three 3x3 are
asymmetric blocks; the 11x11 and the 5x5 are plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from timm.models.vgg import ConvMlp
from torch import Tensor, nn

from leanconv.models.resnet import imagenet
from leanconv.nn import AsymmetricConv2d
from leanconv.nn.asymmetric import BRANCHES

__all__ = ["AsymmetricAlexNet"]


class AsymmetricAlexNet(nn.Module):
    """Five convolutions with norms and ReLU, pooling after the first, second and last, then three linear layers.

    The first two linear layers are convolutions over 6 × 6 pixels and over one, so that larger images give several
    predictions, which are pooled. Takes images of 63 × 63 pixels and more; made for 224 × 224.

    Args:
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        global_pool: how the predictions' features are pooled, a name of timm's: "avg", "max", "" (not at all), others.
        drop_rate: dropout before the second and the third linear layer.
        gamma_init, branches: as `AsymmetricConv2d` takes them.
        device, dtype: as in `nn.Conv2d`.

    Raises:
        ValueError: where `AsymmetricConv2d` refuses its arguments.

    >>> import torch
    >>> with torch.device("meta"):
    ...     network = AsymmetricAlexNet(num_classes=10)
    >>> network.forward_features(torch.empty(1, 3, 224, 224, device="meta")).shape
    torch.Size([1, 256, 6, 6])
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.5,
        gamma_init: float = 1.0,
        branches: Sequence[str] = BRANCHES,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features, self.head_hidden_size = 256, 4096
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

        def plain(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> list[nn.Module]:
            conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=2, bias=False, **where)
            return [conv, nn.BatchNorm2d(out_channels, **where), nn.ReLU(inplace=True)]

        def asymmetric(in_channels: int, out_channels: int) -> list[nn.Module]:
            layer = AsymmetricConv2d(in_channels, out_channels, 3, padding=1, gamma_init=gamma_init, branches=branches,
                                     **where)
            return [layer, nn.ReLU(inplace=True)]

        self.layer1 = nn.Sequential(*plain(in_chans, 64, 11, 4))  # 55 × 55 of 224 × 224
        self.pool1 = nn.MaxPool2d(3, 2)
        self.layer2 = nn.Sequential(*plain(64, 192, 5, 1))  # 27 × 27
        self.pool2 = nn.MaxPool2d(3, 2)
        self.layer3 = nn.Sequential(*asymmetric(192, 384), *asymmetric(384, 384), *asymmetric(384, 256))  # 13 × 13
        self.pool3 = nn.MaxPool2d(3, 2)  # 6 × 6
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": module}
            for channels, reduction, module in ((64, 4, "layer1"), (192, 8, "layer2"), (256, 16, "layer3"),
                                                (256, 32, "pool3"))
        ]
        self.pre_logits = ConvMlp(256, 4096, 6, drop_rate=drop_rate, **where)
        self.global_pool, self.fc = create_classifier(4096, num_classes, global_pool, **where)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for layer in (self.pre_logits.fc1, self.pre_logits.fc2):  # no norm follows them: larger weights diverge
            nn.init.normal_(layer.weight, std=0.005)

    def forward_features(self, input: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) to the last maps (N, 256, about H / 32 − 1, about W / 32 − 1)."""
        stages = [self.layer1, self.pool1, self.layer2, self.pool2, self.layer3, self.pool3]
        if self.grad_checkpointing and self.training:
            return checkpoint_seq(stages, input)
        for stage in stages:
            input = stage(input)
        return input

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps to class scores (N, num_classes), or to what the classifier reads."""
        features = self.global_pool(self.pre_logits(maps))
        features = F.dropout(features, self.drop_rate, self.training)
        return features if pre_logits else self.fc(features)

    def forward(self, input: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(input))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts in a new classifier, and another pooling when one is named."""
        self.num_classes = num_classes
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        weight = self.pre_logits.fc2.weight
        self.global_pool, self.fc = create_classifier(
            self.head_hidden_size, num_classes, pool, device=weight.device, dtype=weight.dtype
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory in training: keeps what goes into each stage and computes the rest again."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which parameters lie at which depth, for layer-wise learning rates in timm."""
        return {"stem": r"^layer1", "blocks": r"^layer(\d+)"}


default_cfgs = generate_default_cfgs({"ac_alexnet.untrained": imagenet(first_conv="layer1.0", pool_size=(6, 6))})


@register_model
def ac_alexnet(pretrained: bool = False, **options: Any) -> nn.Module:
    """ACNet's AlexNet: 63,760,552 parameters, 1.163 G multiply-accumulates; fused, 61,838,504 and 838.8 M."""
    return build_model_with_cfg(AsymmetricAlexNet, "ac_alexnet", pretrained,
                                feature_cfg={"out_indices": (0, 1, 2, 3)}, **options)
