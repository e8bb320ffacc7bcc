import pytest
import torch
from measure.small_network import images, network
from torch import nn

from leanconv.measure import grad_cam
from leanconv.measure.cam import last_maps


@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "5"])
@pytest.mark.parametrize("inplace", [False, True])
def test_it_equals_captum(layer, inplace):
    from captum.attr import LayerGradCam

    model, batch, classes = network(), images(), torch.tensor([0, 4, 2, 2])
    expected = LayerGradCam(model, model.get_submodule(layer)).attribute(batch, classes, relu_attributions=True)
    maps = grad_cam(network(inplace=inplace), batch, layer, classes)
    torch.testing.assert_close(maps, expected.detach()[:, 0])
    assert maps.max() > 0
    assert not maps.requires_grad


def test_it_equals_the_equation():
    model, batch = network(), images()
    maps = model[:3](batch).detach().requires_grad_()
    output = model[3:](maps)
    top = output.argmax(1)
    for index in range(len(batch)):
        slopes = torch.autograd.grad(output[index, top[index]], maps, retain_graph=True)[0][index]
        weighted = sum(slope.mean() * map for slope, map in zip(slopes, maps[index], strict=True))
        torch.testing.assert_close(grad_cam(model, batch, "2")[index], weighted.clamp(min=0).detach())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.idle, self.aside = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, input):
        self.aside(input)
        return self.conv(self.conv(input).relu()).sum((2, 3))


def test_mistakes_are_named():
    model = network()
    with pytest.raises(ValueError, match="unknown layer 'conv'"):
        grad_cam(model, images(), "conv")
    with pytest.raises(ValueError, match="unknown layer 'asid': did you mean 'aside'"):
        grad_cam(Twice(), images(), "asid")
    with pytest.raises(ValueError, match="layer must run once, 'conv' runs 2 times"):
        grad_cam(Twice(), images(), "conv")
    with pytest.raises(ValueError, match="layer 'idle' must run"):
        grad_cam(Twice(), images(), "idle")
    with pytest.raises(ValueError, match="must bear on the output, 'aside' doesn't"):
        grad_cam(Twice(), images(), "aside")
    with pytest.raises(ValueError, match=r"'6' gives \(4, 72\)"):
        grad_cam(model, images(), "6")
    with pytest.raises(ValueError, match="target must be a class from 0 to 4, got 9"):
        grad_cam(model, images(), "2", 9)
    with pytest.raises(ValueError, match=r"got \(3, 8, 8\)"):
        grad_cam(model, images()[0], "2")


class Ends(nn.Module):
    """All that may follow the maps: a layer that runs twice, one beside the way, pixels, and what is no map."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.twice, self.aside, self.pool = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1)
        self.tokens, self.fc = nn.Unflatten(1, (1, 1, 4)), nn.Linear(4, 5)

    def forward(self, images):
        maps = self.twice(self.twice(self.stage(images)))
        self.aside(maps)
        pixels = self.pool(maps).flatten(1)
        return self.fc(self.tokens(pixels).flatten(1))


def test_the_last_maps_are_those_before_the_classifier():
    assert last_maps(network(), images()) == "5"
    model = Ends()
    assert last_maps(model, torch.randn(2, 3, 8, 8)) == "stage"
    assert not any(module._forward_hooks for module in model.modules())
    with torch.inference_mode():
        assert last_maps(model, torch.randn(2, 3, 6, 9)) == "stage"


def test_a_model_without_maps_is_told():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="layer must be given: Sequential has none that gives maps"):
        last_maps(model, torch.randn(1, 3, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())
