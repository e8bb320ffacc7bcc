"""Networks of the papers, registered with timm: importing this lets `timm.create_model` find them."""

from leanconv.models import (  # noqa: F401  (they register their networks)
    asymmetric_densenet,
    asymmetric_resnet,
    cifar,
    ddf_resnet,
    ghost_resnet,
    split_resnet,
    tied_attention,
    tied_efficientnet,
    tied_resnest,
    tied_resnet,
)
from leanconv.models.asymmetric_alexnet import AsymmetricAlexNet
from leanconv.models.cifar import CifarResNet
from leanconv.models.create import create, list_models
from leanconv.models.ghostnet import GhostNet
from leanconv.models.sharing import load, push_to_hub, save
from leanconv.models.weights import load_state

__all__ = [
    "AsymmetricAlexNet", "CifarResNet", "GhostNet", "create", "list_models", "load", "load_state", "push_to_hub",
    "save",
]  # fmt: skip
