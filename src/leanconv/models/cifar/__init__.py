"""Networks for images of 32 × 32 pixels, each with an operator in its convolutions if one is asked for.

    cifar_quick, cifar_vgg16, cifar_resnet20/32/44/56, cifar_wrn16_8, cifar_densenet40

All take `operator="ghost:ratio=2"`: any operator of `leanconv.surgery` with its settings, put into the layers of its
published scope as for weights that are yet to be learned. `where=` narrows the layers and `scope="all"` widens them, as
in `leanconv.plan`.
"""

from leanconv.models.cifar.densenet import CifarDenseNet
from leanconv.models.cifar.network import CifarNetwork
from leanconv.models.cifar.quick import CifarQuick
from leanconv.models.cifar.resnet import CifarResNet
from leanconv.models.cifar.vgg import CifarVgg
from leanconv.models.cifar.wide_resnet import CifarWideResNet

__all__ = ["CifarDenseNet", "CifarNetwork", "CifarQuick", "CifarResNet", "CifarVgg", "CifarWideResNet"]
