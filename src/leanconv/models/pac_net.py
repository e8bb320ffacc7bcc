"""PAC-Net: a depth map enlarged along an image by convolutions whose weights fade where the image changes."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.models.joint_upsampling import CHANNELS, JointUpsamplingNet


class PACUp(nn.Module):
    """A transposed 5x5 convolution of stride 2 whose taps are weighted by the likeness of the guidance.

    y_p = b + Σ_q K(f_p, f_q) W[p − q] x_q with K(f, g) = exp(−½ ‖f − g‖²), where q runs over the pixels of even row
    and column, at which the input's pixels stand. Su et al., "Pixel-Adaptive Convolutional Neural Networks",
    CVPR 2019, arXiv 1904.05373, Eq. 3 and 6. With a constant guidance it is `nn.ConvTranspose2d`.

    Args:
        channels: of input and output.

    Shape:
        (N, channels, h, w) and a guidance (N, K, 2h, 2w) to (N, channels, 2h, 2w).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, 5, stride=2, padding=2, output_padding=1)

    def forward(self, input: Tensor, guidance: Tensor) -> Tensor:
        """The four sub-pixels one after the other: each sees the taps that meet a pixel of the input."""
        height, width = input.shape[2:]
        padded, anchors = F.pad(input, (1, 1, 1, 1)), F.pad(guidance[:, :, ::2, ::2], (1, 1, 1, 1))
        outputs = []
        for row in (0, 1):
            for column in (0, 1):
                here = guidance[:, :, row::2, column::2]
                weighted, matrices = [], []
                for up in range(-1, 2 - row):
                    for left in range(-1, 2 - column):
                        window = (..., slice(1 - up, 1 - up + height), slice(1 - left, 1 - left + width))
                        unlike = (here - anchors[window]).square().sum(1, keepdim=True)
                        weighted.append(padded[window] * (-unlike / 2).exp())
                        matrices.append(self.conv.weight[:, :, row + 2 * up + 2, column + 2 * left + 2])
                matrix = torch.cat(matrices).T[:, :, None, None]
                outputs.append(F.conv2d(torch.cat(weighted, 1), matrix, self.conv.bias))
        return F.pixel_shuffle(torch.stack(outputs, 2).flatten(1, 2), 2)


class PACNet(JointUpsamplingNet):
    """`JointUpsamplingNet` whose steps are `PACUp`: what `DDFUpNet` was derived from, to compare with.

    Args:
        factor: between the sizes of the depth and the image, a power of two.
        depth_channels, image_channels: as in `JointUpsamplingNet`.

    Raises:
        ValueError: for another factor and, in `forward`, for maps of other shapes.

    >>> PACNet(4)(torch.rand(1, 1, 5, 6), torch.rand(1, 3, 20, 24)).shape
    torch.Size([1, 1, 20, 24])
    """

    def __init__(self, factor: int, *, depth_channels: int = 1, image_channels: int = 3) -> None:
        super().__init__(factor, partial(PACUp, CHANNELS), depth_channels=depth_channels, image_channels=image_channels)
