"""DDF-Up-Net: a depth map enlarged along an image by decoupled dynamic filters."""

from __future__ import annotations

from functools import partial
from typing import Literal

from leanconv.models.joint_upsampling import CHANNELS, GUIDE_CHANNELS, JointUpsamplingNet
from leanconv.nn import DDFUp


class DDFUpNet(JointUpsamplingNet):
    """`JointUpsamplingNet` whose steps are `DDFUp`: each sub-pixel's filters see the guidance of all four.

    Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, arXiv 2104.14107, section 5.2; its code was never
    released. For factors 4, 8, 16: 156,921, 182,085, 207,249 parameters.

    Args:
        factor: between the sizes of the depth and the image, a power of two.
        kernel_size: of the filters, odd.
        combine, eps: as in `DDFUp`.
        depth_channels, image_channels: as in `JointUpsamplingNet`.

    Raises:
        ValueError: for another factor, where `DDFUp` refuses its arguments and, in `forward`, for maps of other shapes.

    >>> import torch
    >>> DDFUpNet(4)(torch.rand(1, 1, 5, 6), torch.rand(1, 3, 20, 24)).shape
    torch.Size([1, 1, 20, 24])
    """

    def __init__(
        self,
        factor: int,
        *,
        kernel_size: int = 3,
        combine: Literal["mul", "add"] = "mul",
        eps: float | None = None,
        depth_channels: int = 1,
        image_channels: int = 3,
    ) -> None:
        folded = 4 * GUIDE_CHANNELS
        step = partial(DDFUp, CHANNELS, 2, kernel_size, guide_channels=folded, combine=combine, eps=eps)
        super().__init__(factor, step, depth_channels=depth_channels, image_channels=image_channels)
