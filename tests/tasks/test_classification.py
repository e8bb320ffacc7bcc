import dataclasses
import math

import numpy as np
import pytest
import torch
from timm.data import Mixup
from torch import nn

from leanconv.tasks import build_network, open_data
from leanconv.tasks.classification import Classification


def module_for(recipe, steps=10) -> Classification:
    return Classification(build_network(recipe, open_data(recipe)), recipe, num_classes=6, steps=steps)


def rates(module: Classification, updates: int) -> list[float]:
    """The learning rate before each update."""
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    found = []
    for update in range(updates):
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(update + 1)
    return found


def test_only_weights_decay(quick):
    module = module_for(dataclasses.replace(quick, weight_decay=0.01))
    decayed, rest = module.configure_optimizers()["optimizer"].param_groups
    assert {parameter.ndim for parameter in decayed["params"]} == {2, 4}
    assert {parameter.ndim for parameter in rest["params"]} == {1}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.01, 0.0)
    assert len(decayed["params"]) + len(rest["params"]) == len(list(module.parameters()))


@pytest.mark.parametrize(("name", "kind", "nesterov"), [
    ("sgd", torch.optim.SGD, True),
    ("momentum", torch.optim.SGD, False),
    ("adamw", torch.optim.AdamW, None),
])
def test_optimisers(quick, name, kind, nesterov):
    optimizer = module_for(dataclasses.replace(quick, optimizer=name)).configure_optimizers()["optimizer"]
    assert isinstance(optimizer, kind)
    assert nesterov is None or optimizer.param_groups[0]["nesterov"] is nesterov


def test_cosine_with_warmup_goes_by_updates(quick):
    found = rates(module_for(dataclasses.replace(quick, epochs=4, warmup_epochs=1, lr=1.0)), 40)
    assert found[:10] == pytest.approx([0.01 + 0.099 * step for step in range(10)])
    assert found[10:] == pytest.approx([(1 + math.cos(math.pi * step / 40)) / 2 for step in range(10, 40)])


def test_steps(quick):
    recipe = dataclasses.replace(
        quick, epochs=4, warmup_epochs=0, lr=1.0, schedule="steps", decay_epochs=(2, 3), decay_rate=0.5
    )
    found = rates(module_for(recipe), 40)
    assert [found[step] for step in (0, 18, 21, 28, 31, 39)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_constant(quick):
    recipe = dataclasses.replace(quick, warmup_epochs=0, lr=1.0, schedule="constant")
    assert set(rates(module_for(recipe), 40)) == {1.0}


def test_accumulation_counts_updates(quick):
    assert module_for(dataclasses.replace(quick, accumulate=4), steps=10).updates == 3


def test_smoothing_mixed_labels_is_mixing_smoothed_ones(quick):
    """The loss smooths after mixup, where timm's mixup would smooth before."""
    logits = torch.randn(8, 6)
    images, labels = torch.zeros(8, 3, 4, 4), torch.randint(6, (8,))
    losses = []
    for inside, outside in ((0.1, 0.0), (0.0, 0.1)):
        np.random.seed(0)
        mix = Mixup(0.4, label_smoothing=inside, num_classes=6)
        _, targets = mix(images.clone(), labels)
        losses.append(nn.functional.cross_entropy(logits, targets, label_smoothing=outside).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_channels_last(quick):
    module = module_for(quick)
    assert module.network.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    module.network.body.register_forward_hook(lambda *call: seen.append(call[2]))
    module(torch.randn(2, 3, 16, 16))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
