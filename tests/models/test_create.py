import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from leanconv.models import create, list_models

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_chans=3, width=8):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, input):
        return self.fc(self.conv(input).mean((2, 3)))

def fixed():
    return nn.Conv2d(1, 2, 3)

def number(num_classes):
    return num_classes

constant = 3
"""


@pytest.fixture
def net_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a_net_of_mine.py"
    path.write_text(NET)
    yield path
    sys.modules.pop("a_net_of_mine", None)


def test_timm_finds_our_networks_and_we_find_timms():
    assert "cifar_resnet56" in timm.list_models("cifar_*")
    model = create("resnet18", num_classes=4, in_chans=1)
    assert model.fc.out_features == 4
    assert model.conv1.in_channels == 1
    assert type(create("cifar_resnet20", num_classes=4, drop_rate=0.1)).__module__ == "leanconv.models.cifar.resnet"


def test_importing_models_registers_them_in_a_fresh_interpreter():
    code = "import leanconv.models, timm; print(timm.create_model('cifar_resnet32', num_classes=3).fc.out_features)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_names_are_listed():
    own = list_models(own=True)
    assert set(own) >= {"cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56"}
    assert "resnet50" not in own
    assert list_models("resnet1?") == ["resnet18"]


@pytest.mark.parametrize("source", ["a_net_of_mine", "a_net_of_mine.py"])
def test_a_class_of_the_users_own_gets_what_it_takes(net_file, source):
    model = create(f"{source}:Net", num_classes=5, in_chans=2, width=4)
    assert model.fc.weight.shape == (5, 4)
    assert model.conv.in_channels == 2
    assert create(f"{source}:fixed", num_classes=5).out_channels == 2
    assert str(net_file.parent) not in sys.path


def test_classes_that_are_not_given_are_the_networks_own(net_file):
    assert create("cifar_resnet20").fc.out_features == 10
    assert create("resnet18").fc.out_features == 1000
    assert create("torchvision.models:resnet18").fc.out_features == 1000


def test_a_file_is_found_by_its_path(net_file, monkeypatch):
    monkeypatch.chdir("/")
    assert create(f"{net_file}:Net", num_classes=5)(torch.ones(1, 3, 8, 8)).shape == (1, 5)


def test_a_file_can_hold_dataclasses_and_leaves_nothing_when_it_fails(tmp_path):
    path = tmp_path / "json.py"  # the name of another module
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
    body = "@dataclass\nclass Size:\n    width: int = 4\n\ndef net(): return nn.Conv2d(1, Size().width, 1)\n"
    path.write_text(head + body)
    module = sys.modules.get("json")
    assert create(f"{path}:net").out_channels == 4
    assert sys.modules.get("json") is module
    assert "leanconv_file_json" in sys.modules
    path.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        create(f"{path}:net")
    assert "leanconv_file_json" not in sys.modules


def test_a_function_that_passes_arguments_on_gets_the_classes_only():
    assert create("torchvision.models:resnet18", num_classes=6).fc.out_features == 6


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("cifar_resnet21", ValueError, "unknown model 'cifar_resnet21': did you mean .*'cifar_resnet20'"),
        ("qqqq", ValueError, "unknown model 'qqqq': list them with: leanconv models PATTERN"),
        ("resnet50.nothing", ValueError, "model 'resnet50.nothing' can't be built: Invalid pretrained tag"),
        ("no_such_module:Net", ValueError, "model 'no_such_module:Net': No module named 'no_such_module'"),
        ("no_such_file.py:Net", ValueError, "model 'no_such_file.py:Net'.*No such file"),
        ("a_net_of_mine:Nett", ValueError, "callable .* 'Nett': did you mean 'Net'"),
        ("a_net_of_mine:constant", TypeError, "'a_net_of_mine:constant' must be callable, got int"),
        ("a_net_of_mine:number", TypeError, "must return a torch.nn.Module, got int"),
    ],
)
def test_names_that_lead_nowhere_are_refused(net_file, name, error, message):
    with pytest.raises(error, match=message):
        create(name, num_classes=5)


def test_arguments_that_can_not_be_are_refused(net_file):
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 1, got 0"):
        create("cifar_resnet20", num_classes=0)
    with pytest.raises(ValueError, match="in_chans must be a whole number of at least 1, got -1"):
        create("cifar_resnet20", in_chans=-1)
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 1, got 'ten'"):
        create("cifar_resnet20", num_classes="ten")
    with pytest.raises(ValueError, match="model 'cifar_resnet20' can't be built: Invalid pool type: mean"):
        create("cifar_resnet20", global_pool="mean")
    with pytest.raises(ValueError, match="model 'local-dir:nowhere' can't be built: Config file not found"):
        create("local-dir:nowhere")
    with pytest.raises(ValueError, match="has no argument pretrained"):
        create("a_net_of_mine:Net", num_classes=2, pretrained=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wdith'"):
        create("a_net_of_mine:Net", num_classes=2, wdith=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'shortcutt'"):
        create("cifar_resnet20", num_classes=2, shortcutt="B")
    unpublished = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(ValueError, match="No pretrained weights exist"):
        create(unpublished, num_classes=2, pretrained=True)
    with pytest.raises(ValueError, match=r"Invalid pretrained tag .*these have some: cifar_resnet20, cifar_resnet"):
        create("cifar_resnet20.nothing", pretrained=True)


def test_weights_that_do_not_fit_an_option_are_refused_without_talk_of_others(tmp_path):
    torch.save(create("cifar_resnet20").state_dict(), tmp_path / "a.pth")
    overlay = {"file": str(tmp_path / "a.pth")}
    with pytest.raises(ValueError, match=r"can't be built: .*\n.*Missing key") as refusal:
        create("cifar_resnet20", shortcut="B", pretrained=True, pretrained_cfg_overlay=overlay)
    assert "family" not in str(refusal.value)


def test_an_error_inside_the_users_module_is_theirs_to_see(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_net.py").write_text("import a_package_that_is_missing\n")
    with pytest.raises(ValueError, match="No module named 'a_package_that_is_missing'"):
        create("broken_net:Net", num_classes=2)
    (tmp_path / "failing_net.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        create("failing_net.py:Net", num_classes=2)


def test_plain_modules_are_models_too():
    assert isinstance(create("torch.nn:Identity", num_classes=2), nn.Identity)
