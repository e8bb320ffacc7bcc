import pytest
import torch
from measure.small_network import images, network

from leanconv.measure import grad_cam, guided_backprop
from leanconv.measure.evidence import evidence


@pytest.mark.parametrize("target", [None, 3])
def test_it_is_grad_cam_and_guided_backprop_of_one_class(target):
    model, batch = network(), images(5)
    found = evidence(model, batch, target=target, guided=True, batch_size=2)
    chances = model(batch).softmax(1)
    classes = chances.argmax(1) if target is None else torch.full((5,), 3)
    assert found.layer == "5"
    assert torch.equal(found.classes, classes)
    torch.testing.assert_close(found.probabilities, chances[range(5), classes])
    torch.testing.assert_close(found.maps, grad_cam(model, batch, "5", classes))
    torch.testing.assert_close(found.patterns, guided_backprop(model, batch, classes))
    assert not found.probabilities.requires_grad


def test_batches_of_pairs_and_another_layer():
    steps = []
    found = evidence(network(), [(images(2), torch.zeros(2)), (images(3), torch.zeros(3))], "2",
                     progress=lambda done, total: steps.append((done, total)))
    assert found.maps.shape == (5, 8, 8)
    assert found.patterns is None
    assert steps == [(1, 2), (2, 2)]


def test_a_class_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="target must be a class from 0 to 4, got 5"):
        evidence(network(), images(), target=5)
    with pytest.raises(ValueError, match="at least one image, got none"):
        evidence(network(), [])
