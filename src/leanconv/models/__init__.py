"""Networks of the papers, registered with timm: importing this lets `timm.create_model` find them."""

from leanconv.models.cifar import CifarResNet
from leanconv.models.create import create, list_models

__all__ = ["CifarResNet", "create", "list_models"]
