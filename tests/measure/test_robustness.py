import pytest
import torch
from torch import nn

from leanconv.measure import DISTORTIONS, Robustness, accuracy, robustness
from leanconv.models import create

IMAGES = torch.ones(2, 3, 8, 8)


def network():
    """A classifier that goes by where the pixels are, with random norm statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5))
    nn.init.normal_(model[1].running_mean)
    nn.init.uniform_(model[1].running_var, 0.5, 2)
    return model.eval()


def batches(count=3, size=5, classes=5):
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(size, 3, 8, 8, generator=generator), torch.randint(classes, (size,), generator=generator))
            for _ in range(count)]


def pixel_by_pixel(images, place):
    """Images whose pixel at (row, column) is that of the original at place(row, column)."""
    moved = torch.empty_like(images)
    for row in range(images.shape[2]):
        for column in range(images.shape[3]):
            source = place(row, column)
            moved[:, :, row, column] = images[:, :, source[0], source[1]]
    return moved


PLACES = {
    "rotated 90°": lambda row, column: (column, 7 - row),
    "rotated 180°": lambda row, column: (7 - row, 7 - column),
    "flipped up-down": lambda row, column: (7 - row, column),
}


def accuracy_by_loops(model, data, change=lambda images: images):
    """One image at a time."""
    right = []
    for images, labels in data:
        for image, label in zip(change(images), labels, strict=True):
            scores = model(image[None])[0].tolist()
            right.append(scores.index(max(scores)) == label)
    return sum(right) / len(right)


def test_accuracies_equal_those_of_loops():
    model, data = network(), batches(8, 25)
    values = robustness({"small": model}, data).accuracies["small"]
    assert list(values) == ["upright", *PLACES]
    assert values["upright"] == accuracy_by_loops(model, data)
    for name, place in PLACES.items():
        assert values[name] == accuracy_by_loops(model, data, lambda images, place=place: pixel_by_pixel(images, place))
    assert len(set(values.values())) > 2


@pytest.mark.parametrize("name", DISTORTIONS)
def test_distortions_move_pixels_exactly(name):
    images = batches(1)[0][0]
    assert torch.equal(DISTORTIONS[name](images), pixel_by_pixel(images, PLACES[name]))


def test_the_model_is_tested_in_eval_mode_and_stays_as_it_is():
    model, data = network(), batches()
    expected = accuracy(model, data)
    model.train()
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert accuracy(model, data) == expected
    assert model[1].training
    assert not model[2].training
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_batches_of_different_sizes_count_by_image():
    model = nn.Flatten()
    data = [(torch.eye(3).view(3, 3, 1, 1), torch.tensor([0, 1, 2])), (torch.ones(1, 3, 1, 1), torch.tensor([2]))]
    assert accuracy(model, data) == 0.75


def test_a_network_of_ours_can_be_tested():
    model = create("cifar_resnet20", num_classes=5, in_chans=3)
    result = robustness(model, batches(1))
    assert list(result.accuracies) == [type(model).__name__]
    assert result.images == 5


def test_the_table_has_the_differences():
    dense, acb = {"upright": 0.7036, "rotated 90°": 0.41}, {"upright": 0.25, "rotated 90°": 0.5}
    result = Robustness({"dense": dense, "acb": acb}, 10_000)
    assert result.difference("dense", "rotated 90°") == pytest.approx(-0.2936)
    table = result.table()
    assert table.columns == ["model", "upright", "rotated 90°"]
    assert table.rows == [["dense", "70.36%", "41.00% (−29.36)"], ["acb", "25.00%", "50.00% (+25.00)"]]
    assert "10000 images" in table.notes[0]
    assert "standard error at most 0.50" in table.notes[0]


def test_own_distortions_can_be_given():
    model, data = network(), batches()
    values = robustness(model, data, {"black": torch.zeros_like}).accuracies["Sequential"]
    assert values["black"] == accuracy_by_loops(model, data, torch.zeros_like)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ([], ValueError, "at least one image, got none"),
        ([(IMAGES, torch.tensor([-1, -1]))], ValueError, "from 0 to 4, got -1: the images have no labels"),
        ([(IMAGES, torch.tensor([0, 5]))], ValueError, "from 0 to 4, got 5$"),
        ([(IMAGES, torch.tensor([0]))], ValueError, "one whole number for each of 2 images"),
        ([(IMAGES, torch.tensor([0.5, 1]))], ValueError, "one whole number for each of 2 images"),
        ([IMAGES], TypeError, "pairs of images and labels, got Tensor"),
        ([(torch.ones(3, 8, 8), torch.tensor([1]))], ValueError, r"shape \(N, C, H, W\), got \(3, 8, 8\)"),
        ([(IMAGES.byte(), torch.tensor([1, 1]))], TypeError, "floating-point numbers, got torch.uint8"),
        (iter(batches()), TypeError, "gone through again, a list or a data loader, got list_iterator"),
    ],
)
def test_mistakes_are_named(data, kind, message):
    with pytest.raises(kind, match=message):
        robustness(network(), data)


def test_scores_must_be_one_row_an_image():
    with pytest.raises(ValueError, match=r"must give scores \(N, K\) for 5 images, got \(5, 3, 8, 8\)"):
        accuracy(nn.Identity(), batches())
    with pytest.raises(ValueError, match="models must be at least one"):
        robustness({}, batches())
