import math
from dataclasses import replace

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


def updated(module: Classification) -> dict[str, float]:
    """What one update with gradients of 0 and then one with gradients of 1 take off each parameter, all being 1."""
    found = {}
    for gradient in (0.0, 1.0):
        optimizer = module.configure_optimizers()["optimizer"]
        for parameter in module.network.parameters():
            torch.nn.init.ones_(parameter)
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        for name, parameter in module.network.named_parameters():
            found[name, gradient] = 1 - parameter.detach().unique().item()
    return found


def test_only_weights_decay(quick):
    found = updated(module_for(replace(quick, weight_decay=0.01, lr=1.0, warmup_epochs=0, optimizer="momentum")))
    for name, value in {"stem.0.weight": 0.01, "stem.1.weight": 0.0, "stem.1.bias": 0.0, "head.3.bias": 0.0}.items():
        assert found[name, 0.0] == pytest.approx(value, abs=1e-6)
        assert found[name, 1.0] == pytest.approx(1 + value)


def test_all_parameters_decay_when_asked_for(quick):
    found = updated(module_for(
        replace(quick, weight_decay=0.01, weight_decay_all=True, lr=1.0, warmup_epochs=0, optimizer="momentum")
    ))
    assert {round(value, 5) for (_, gradient), value in found.items() if not gradient} == {0.01}


def test_biases_learn_at_a_rate_of_their_own(quick):
    recipe = replace(
        quick, weight_decay=0.1, weight_decay_all=True, bias_lr=2.0, lr=0.5, warmup_epochs=0, optimizer="momentum"
    )
    found = updated(module_for(recipe))
    assert all(
        value == pytest.approx((1.0 if name.endswith("bias") else 0.5) * (0.1 + gradient), rel=1e-4)
        for (name, gradient), value in found.items()
    )


@pytest.mark.parametrize("schedule", ["cosine", "steps", "constant"])
def test_the_rate_of_biases_keeps_its_factor(quick, schedule):
    recipe = replace(
        quick, bias_lr=2.0, schedule=schedule, decay_epochs=(2,) if schedule == "steps" else (), warmup_epochs=1
    )
    configured = module_for(recipe).configure_optimizers()
    for update in range(1, 31):
        rates = {group["lr_scale"]: group["lr"] for group in configured["optimizer"].param_groups}
        assert rates[2.0] == 2 * rates[1.0]
        configured["lr_scheduler"]["scheduler"].step_update(update)


def test_every_parameter_is_updated_once(quick):
    module = module_for(replace(quick, bias_lr=2.0))
    groups = module.configure_optimizers()["optimizer"].param_groups
    given = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(given) == sorted(map(id, module.parameters()))


@pytest.mark.parametrize(("name", "kind", "nesterov"), [
    ("sgd", torch.optim.SGD, True),
    ("momentum", torch.optim.SGD, False),
    ("adamw", torch.optim.AdamW, None),
])
def test_optimisers(quick, name, kind, nesterov):
    optimizer = module_for(replace(quick, optimizer=name)).configure_optimizers()["optimizer"]
    assert isinstance(optimizer, kind)
    assert nesterov is None or optimizer.param_groups[0]["nesterov"] is nesterov


def test_cosine_with_warmup_goes_by_updates(quick):
    found = rates(module_for(replace(quick, epochs=4, warmup_epochs=1, lr=1.0)), 40)
    assert found[:10] == pytest.approx([0.01 + 0.099 * step for step in range(10)])
    assert found[10:] == pytest.approx([(1 + math.cos(math.pi * step / 40)) / 2 for step in range(10, 40)])


def test_cosine_ends_at_its_lowest_rate_and_cools_down(quick):
    found = rates(module_for(replace(quick, epochs=6, cooldown_epochs=2, min_lr=0.2, warmup_epochs=0, lr=1.0)), 60)
    assert found[:40] == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)])
    assert found[40:] == [0.2] * 20


def test_the_warm_up_begins_where_it_is_told(quick):
    found = rates(module_for(replace(quick, warmup_epochs=1, warmup_lr=0.5, lr=1.0)), 10)
    assert found == pytest.approx([0.5 + 0.05 * step for step in range(10)])
    assert rates(module_for(replace(quick, warmup_epochs=1, warmup_lr=0.0, lr=1.0)), 1) == [0.0]


def test_steps(quick):
    recipe = replace(
        quick, epochs=4, warmup_epochs=0, lr=1.0, schedule="steps", decay_epochs=(2, 3), decay_rate=0.5
    )
    found = rates(module_for(recipe), 40)
    assert [found[step] for step in (0, 18, 21, 28, 31, 39)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_constant(quick):
    recipe = replace(quick, warmup_epochs=0, lr=1.0, schedule="constant")
    assert set(rates(module_for(recipe), 40)) == {1.0}


def test_accumulation_counts_updates(quick):
    assert module_for(replace(quick, accumulate=4), steps=10).updates == 3


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
