"""A small network with random norm statistics, and images for it."""

import torch
from torch import nn


def network(activation=nn.ReLU, **arguments):
    """Two convolutions with norms, whose statistics are random, and a classifier."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), activation(**arguments),
        nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), activation(**arguments), nn.Flatten(), nn.Linear(8 * 9, 5),
    )
    for norm in (model[1], model[4]):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return model.eval()


def images(count=4):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
