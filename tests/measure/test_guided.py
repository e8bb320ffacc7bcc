import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from measure.small_network import images, network
from torch import nn

from leanconv.measure import guided_backprop
from leanconv.measure.guided import ACTIVATIONS


def by_captum(model, batch, target):
    from captum.attr import GuidedBackprop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GuidedBackprop(copy.deepcopy(model)).attribute(batch.clone(), target=target)


def test_it_equals_captum_on_relu_modules():
    model, batch, classes = network(), images(), [0, 4, 2, 2]
    pattern = guided_backprop(model, batch, classes)
    torch.testing.assert_close(pattern, by_captum(model, batch, torch.tensor(classes)))
    plain = torch.autograd.grad(model(leaf := batch.clone().requires_grad_())[range(4), classes].sum(), leaf)[0]
    assert not torch.allclose(pattern, plain)
    torch.testing.assert_close(guided_backprop(model, batch), by_captum(model, batch, model(batch).argmax(1)))


class Functional(nn.Module):
    """The same network with functions for modules, one way of writing a ReLU for another."""

    def __init__(self, network, first, second):
        super().__init__()
        self.network, self.first, self.second = network, first, second

    def forward(self, input):
        conv, norm, _, other, other_norm, _, flatten, linear = self.network
        hidden = self.second(other_norm(other(self.first(norm(conv(input))))))
        return linear(flatten(hidden))


@pytest.mark.parametrize(("first", "second"), [
    (F.relu, torch.relu), (torch.relu_, torch.Tensor.relu_), (torch.Tensor.relu, lambda x: F.relu(x, inplace=True)),
    (lambda x: x.clamp(min=0), lambda x: x.clamp_(0)), (lambda x: torch.clamp_min(x, 0), lambda x: torch.clip(x, 0)),
    (lambda x: F.threshold(x, 0, 0), lambda x: F.leaky_relu(x, 0.0)), (nn.ReLU(inplace=True), nn.PReLU(init=0)),
])
def test_every_way_of_writing_a_relu_is_seen(first, second):
    model = network()
    written = Functional(model, first, second).eval()
    torch.testing.assert_close(guided_backprop(written, images(), 1), by_captum(model, images(), 1))


def test_a_reused_module_in_place():
    model = network()
    shared = nn.ReLU(inplace=True)
    torch.testing.assert_close(
        guided_backprop(Functional(model, shared, shared), images(), 1), by_captum(model, images(), 1))


@pytest.mark.parametrize("activation", [
    nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish,
    nn.Mish, nn.Softplus, lambda: nn.Threshold(0.1, 0.0)])
def test_the_family_passes_its_own_gradient_of_positive_gradients(activation):
    model = network(activation).double()
    batch = images().double()
    conv, norm, act, other, other_norm, last, _, linear = model
    leaf = batch.clone().requires_grad_()
    before = norm(conv(leaf))
    hidden = act(before)
    between = other_norm(other(hidden))
    result = last(between)

    def back(output, input, gradient):
        return torch.autograd.grad(output, input, gradient, retain_graph=True)[0]

    gradient = linear.weight[3].expand(4, -1).reshape(result.shape).relu()
    gradient = back(between, hidden, back(result, between, gradient)).relu()
    expected = back(before, leaf, back(hidden, before, gradient))
    torch.testing.assert_close(guided_backprop(model, batch, 3), expected)


def test_the_list_of_activations_names_functions_that_exist():
    assert all(hasattr(F, name) for name in ACTIVATIONS)


def test_a_channel_of_a_layer_is_summed_over_its_map():
    model = network()
    expected = by_captum(nn.Sequential(*model[:4], nn.AdaptiveAvgPool2d(1), nn.Flatten()), images(), 5) * 9
    torch.testing.assert_close(guided_backprop(model, images(), 5, layer="3"), expected)
    # The output of the norm is changed in place by the ReLU that follows.
    model = network(inplace=True)
    expected = by_captum(nn.Sequential(*network()[:5], nn.AdaptiveAvgPool2d(1), nn.Flatten()), images(), 5) * 9
    torch.testing.assert_close(guided_backprop(model, images(), 5, layer="4"), expected)


def test_a_model_that_begins_in_place_leaves_the_images_alone():
    batch = images()
    kept = batch.clone()
    guided_backprop(nn.Sequential(nn.ReLU(inplace=True), network()), batch)
    assert torch.equal(batch, kept)
    assert not batch.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off(mode):
    model = network()
    with mode():
        pattern = guided_backprop(model, images(), 0)
    torch.testing.assert_close(pattern, guided_backprop(model, images(), 0))


def test_the_model_stays_as_it_is_after_an_error_too():
    model = network().train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def unchanged():
        assert [module.training for module in model] == [True, False, *[True] * 6]
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())

    guided_backprop(model, images(), layer="3")
    unchanged()
    with pytest.raises(ValueError, match="images must suit the model, Sequential can't run on"):
        guided_backprop(model, images()[:, :2], layer="3")
    unchanged()
    leaf = images().requires_grad_()
    model.eval()(leaf)[:, 0].sum().backward()
    assert not torch.allclose(leaf.grad, guided_backprop(model, images(), 0))


def test_mistakes_are_named():
    model = network()
    with pytest.raises(ValueError, match=r"model must have a ReLU .* Conv2d runs none"):
        guided_backprop(nn.Conv2d(3, 4, 3), images())
    with pytest.raises(ValueError, match="model must have a ReLU"):  # a clamp from elsewhere than 0 is none
        guided_backprop(Functional(model, lambda x: x.clamp(min=1e-6), torch.sigmoid), images())
    with pytest.raises(ValueError, match="target must be a class from 0 to 4, got 5"):
        guided_backprop(model, images(), 5)
    with pytest.raises(ValueError, match="target must be a channel from 0 to 7, got -1"):
        guided_backprop(model, images(), -1, layer="0")
    with pytest.raises(ValueError, match=r"target must be a class, or one for each of 4 images, got \[1, 2\]"):
        guided_backprop(model, images(), [1, 2])
    with pytest.raises(ValueError, match=r"images must have the shape \(N, C, H, W\), got \(3, 8, 8\)"):
        guided_backprop(model, images()[0])
    with pytest.raises(TypeError, match=r"floating-point numbers, got torch\.uint8"):
        guided_backprop(model, images().byte())
    with pytest.raises(ValueError, match="unknown layer 'linear'"):
        guided_backprop(model, images(), layer="linear")
    with pytest.raises(ValueError, match="fits 8"):
        guided_backprop(model, images(), layer="*")
    with pytest.raises(ValueError, match="must depend on the images"):
        guided_backprop(Functional(model, torch.relu, lambda x: torch.relu(x.detach())).requires_grad_(False), images())
