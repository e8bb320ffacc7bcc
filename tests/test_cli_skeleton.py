"""The commands skeleton and robustness."""


import pytest
import torch
from command_line import complaint, csv_rows, output
from torch import nn

from leanconv import measure
from leanconv.cli import main
from leanconv.cli.options import Build
from leanconv.cli.robustness import headline
from leanconv.cli.sight import Sight, specimens
from leanconv.models import create
from leanconv.surgery import plan, swap
from leanconv.tasks import Recipe, save_model
from leanconv.tasks.checkpoint import configuration
from leanconv.tasks.data import ImageInfo

INFO = ImageInfo(
    num_classes=10, in_chans=1, image_size=8, mean=(0.5,), std=(0.25,), classes=tuple(map(str, range(10)))
)
FEW = ["--limit", "20"]
SHORT = [*FEW, "--sparsities", "0.1", "0.4", "--seeds", "2"]


def saved(network, path, **config):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    save_model(path, network, {**configuration(Recipe(), INFO), **config})
    return str(path)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A dense network, and an asymmetric one."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    dense = create("cifar_resnet20", num_classes=10, in_chans=1)
    asymmetric = plan(dense, "asymmetric", example=torch.zeros(1, 1, 8, 8))
    strong = saved(swap(dense, asymmetric), folder / "strong.safetensors", plans=[asymmetric.to_yaml()])
    return [saved(dense, folder / "dense.safetensors"), strong]


@pytest.fixture
def counted(monkeypatch):
    """How many times a network's accuracy was measured; the command is interrupted after as many as `limit`."""
    accuracy = measure.accuracy

    class Count:
        tests = 0
        limit = 1000

    def counting(model, batches, distort=None):
        if Count.tests == Count.limit:
            raise KeyboardInterrupt
        Count.tests += 1
        return accuracy(model, batches, distort)

    monkeypatch.setattr(measure, "accuracy", counting)
    return Count


def test_skeleton_writes_the_numbers_that_the_measures_give(capsys, tmp_path, checkpoints):
    text = output(capsys, "skeleton", *checkpoints, *SHORT, "--out", str(tmp_path))
    both = specimens(checkpoints, Sight(limit=20), Build(), labelled=True)
    assert [specimen.name for specimen in both] == ["dense", "strong"]
    magnitudes = {
        (row["model"], row["layer"], int(row["row"]), int(row["column"])): float(row["magnitude"])
        for row in csv_rows(tmp_path / "magnitudes.csv")
    }
    accuracies = csv_rows(tmp_path / "zeroing.csv")
    for specimen in both:
        skeleton = measure.kernel_skeleton(specimen.network)
        assert len(skeleton.layers) == 19
        for name, matrix in [("average", skeleton.average), *((each.name, each.matrix) for each in skeleton.layers)]:
            for row in range(3):
                for column in range(3):
                    assert magnitudes[specimen.name, name, row, column] == matrix[row, column]
        curves = measure.zeroing_curves(
            specimen.network, lambda network, shown=specimen: measure.accuracy(network, shown.batches()),
            sparsities=[0.1, 0.4], seeds=range(2),
        )  # fmt: skip
        found = {
            measure.Zeroing(row["region"], float(row["sparsity"]), int(row["seed"])): float(row["accuracy"])
            for row in accuracies
            if row["model"] == specimen.name
        }
        assert found == curves.accuracies
        assert str(curves) in text
        assert f"{skeleton.share('skeleton'):.1%}" in text
    assert len(magnitudes) == 2 * 20 * 9
    assert {file.name for file in tmp_path.iterdir()} == {
        "magnitudes.csv", "zeroing.csv", "skeleton.png", "zeroing.png", "report.html"
    }  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 4
    assert "of the kernel magnitude of" in page


def test_a_repeated_command_goes_on_where_it_was_interrupted(capsys, tmp_path, checkpoints, counted):
    tokens = ["skeleton", checkpoints[0], *SHORT, "--out", str(tmp_path)]
    counted.limit = 5
    with pytest.raises(SystemExit) as stopped:
        main(tokens)
    assert stopped.value.code == 130
    assert "repeat the command to resume" in capsys.readouterr().err
    begun = csv_rows(tmp_path / "zeroing.csv")
    assert len(begun) == 5
    counted.limit = 1000
    main(tokens)
    assert counted.tests == 13
    assert csv_rows(tmp_path / "zeroing.csv")[:5] == begun
    main([*tokens[:-3], "3", *tokens[-2:]])
    assert counted.tests == 13 + 6
    main(tokens)
    assert counted.tests == 13 + 6
    assert len(csv_rows(tmp_path / "zeroing.csv")) == 19


@pytest.mark.parametrize("change", [["--limit", "19"], ["--seed", "1"], ["--layers", "layer1.*"], ["other"]])
def test_it_starts_anew_where_earlier_numbers_do_not_hold(tmp_path, checkpoints, counted, change):
    path = tmp_path / "model.safetensors"
    torch.manual_seed(1)
    saved(create("cifar_resnet20", num_classes=10, in_chans=1), path)
    tokens = ["skeleton", str(path), "--sparsities", "0.4", "--seeds", "1", "--out", str(tmp_path / "out")]
    main([*tokens, *FEW])
    assert counted.tests == 4
    if change == ["other"]:
        saved(create("cifar_resnet20", num_classes=10, in_chans=1), path)
        change = FEW
    main([*tokens, *change, *([] if "--limit" in change else FEW)])
    assert counted.tests == 8
    assert len(csv_rows(tmp_path / "out" / "zeroing.csv")) == 4


def test_without_zeroing_no_images_are_needed(capsys, tmp_path):
    text = output(capsys, "skeleton", "cifar_resnet20", "cifar_resnet32", "--no-zeroing", "--out", str(tmp_path))
    assert "cifar_resnet32       31" in text
    assert {file.name for file in tmp_path.iterdir()} == {"magnitudes.csv", "skeleton.png", "report.html"}


def test_robustness_writes_the_numbers_that_the_measure_gives(capsys, tmp_path, checkpoints):
    text = output(capsys, "robustness", *checkpoints, *FEW, "--out", str(tmp_path))
    both = specimens(checkpoints, Sight(limit=20), Build(), labelled=True)
    expected = measure.Robustness(
        {
            name: values
            for shown in both
            for name, values in measure.robustness({shown.name: shown.network}, shown.batches()).accuracies.items()
        },
        20,
    )
    found = {(row["model"], row["images are"]): float(row["accuracy"]) for row in csv_rows(tmp_path / "robustness.csv")}
    assert found == {(name, how): value for name, each in expected.accuracies.items() for how, value in each.items()}
    assert str(expected) in text
    assert {file.name for file in tmp_path.iterdir()} == {"robustness.csv", "robustness.png", "report.html"}
    assert (tmp_path / "report.html").read_text().count("<svg") == 1


def test_the_network_that_loses_least_is_named():
    accuracies = {"a": {"upright": 0.9, "90": 0.5, "180": 0.3}, "b": {"upright": 0.5, "90": 0.4, "180": 0.3}}
    assert headline(measure.Robustness(accuracies, 10)).startswith("b loses the least: 15.0 percentage points")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["skeleton"], "models must be at least one"),
        (["skeleton", "--no-zeroing"], "models must be at least one"),
        (["robustness"], "models must be at least one"),
        (["robustness", "cifar_resnet20"], "give --data"),
        (["skeleton", "cifar_resnet20"], "give --data"),
        (["skeleton", "cifar_resnet20", "--no-zeroing", "--layers", "layer9.*"], "unknown layer 'layer9.*'"),
        (["skeleton", "cifar_resnet20", "--no-zeroing", "--kernel-size", "2"], "kernel_size must be odd"),
        (["skeleton", "cifar_resnet20", "--no-zeroing", "--kernel-size", "5"], "must have 5 × 5 kernels"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, tmp_path, tokens, message):
    assert message in complaint(capsys, *tokens, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_file_of_someone_else_is_left_alone(capsys, tmp_path, checkpoints):
    (tmp_path / "zeroing.csv").write_text("mine\n1\n")
    message = complaint(capsys, "skeleton", checkpoints[0], *SHORT, "--out", str(tmp_path))
    assert "must be one that this command wrote" in message
    assert (tmp_path / "zeroing.csv").read_text() == "mine\n1\n"
