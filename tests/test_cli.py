import dataclasses
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from command_line import complaint, csv_rows, output
from safetensors.torch import load_file
from torch import nn

import leanconv
from leanconv.cli import app, main
from leanconv.cli.output import watched
from leanconv.cli.training import run_name
from leanconv.cli.words import default_of, split_operators
from leanconv.models import create
from leanconv.surgery import Plan, fuse
from leanconv.tasks import Recipe, load_model, save_model
from leanconv.tasks.checkpoint import configuration
from leanconv.tasks.data import ImageInfo
from leanconv.tasks.depth_recipe import NETWORKS, DepthRecipe
from leanconv.tasks.detection_recipe import DETECTORS, DetectionRecipe
from leanconv.tasks.task import RECIPES, load_recipe, recipe_class
from leanconv.tasks.training_recipe import recipe_names

COMMANDS = ["ops", "models", "recipes", "plan", "swap", "profile", "train", "eval", "compare", "fuse", "export",
            "verify", "quantize", "skeleton", "robustness", "similarity", "cam", "check", "occlusion"]
INFO = ImageInfo(
    num_classes=10, in_chans=1, image_size=16, mean=(0.5,), std=(0.25,), classes=tuple(map(str, range(10)))
)


def run(*tokens, **options):
    command = [sys.executable, "-m", "leanconv.cli", *tokens]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture
def checkpoint(tmp_path):
    """A network with norms that have seen something, as a training leaves it."""
    network = create("cifar_resnet20", num_classes=10, in_chans=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    path = tmp_path / "model.safetensors"
    save_model(path, network, configuration(Recipe(), INFO))
    return path


def test_help_answers_without_loading_torch():
    code = "import sys, leanconv.cli; print([name for name in ('torch', 'timm', 'lightning') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_by_example(capsys, command):
    text = output(capsys, command, "--help")
    assert f"leanconv {command}" in text.partition("For example:")[2]


def test_the_version_is_told(capsys):
    assert output(capsys, "--version") == f"{leanconv.__version__}\n"


@pytest.mark.parametrize("command", ["train", "compare"])
def test_every_recipe_key_is_an_option_with_its_default(command):
    lines = help_lines(command)
    for field in dataclasses.fields(Recipe):
        if command == "compare" and field.name in ("operator", "seed"):
            continue
        [line] = [line for line in lines if line.startswith(f"--{field.name.replace('_', '-')} ")]
        if field.default not in (None, "", ()):
            assert f"[default: {default_of(field.default)}" in line


def test_options_tell_what_is_different_for_other_tasks():
    lines = {line.split()[0]: line for line in help_lines("train") if line.startswith("--")}
    assert "[default: 8, detection 12, depth 1500]" in lines["--epochs"]
    assert "[default: cosine, detection steps, depth steps]" in lines["--schedule"]
    for kind in map(recipe_class, RECIPES):
        assert all(form in lines["--data"] for form in kind.sources)
    assert all(name in lines["--model"] for name in (*DETECTORS, *NETWORKS))
    assert "RetinaNet has none." in lines["--regions"]  # the end of a text of two lines
    titles = [line for line in help_lines("train") if line.startswith("╭─ Recipe")]
    assert {title.strip("╭─╮ ").partition(", ")[2] for title in titles} == {
        "over that of the file", *(f"over that of the file, for {task}" for task in RECIPES)
    }


def help_lines(command):
    """The options of a command, each with its help on one line."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    app.help_print(command, console=Console(file=text, width=400))
    return [line.strip("│ ") for line in text.getvalue().splitlines()]


def test_ops_are_listed(capsys):
    text = output(capsys, "ops")
    assert "tied " in text
    assert "blocks=2" in text
    assert "dense" in text


def test_models_are_listed_with_their_costs(capsys):
    random = torch.random.get_rng_state()
    head, _, *rows = output(capsys, "models", "cifar_resnet[23]?").splitlines()
    assert head.split() == ["model", "params", "(k)", "MACs", "(M)", "input", "what", "it", "is", "arXiv"]
    assert [row.split() for row in rows] == [
        ["cifar_resnet20", "269.7", "40.55", "3×32×32", "ResNet-20", "for", "CIFAR", "1512.03385"],
        ["cifar_resnet32", "464.2", "68.86", "3×32×32", "ResNet-32", "for", "CIFAR", "1512.03385"],
    ]
    assert torch.equal(torch.random.get_rng_state(), random)
    assert "11.69      1.814   3×224×224   Constructs a ResNet-18 model" in output(capsys, "models", "resnet1?")


def test_models_are_listed_by_name_only(capsys):
    assert set(output(capsys, "models", "--no-costs").split()) >= {"cifar_resnet20", "cifar_resnet32"}
    assert output(capsys, "models", "resnet1?", "--no-costs").split() == ["resnet18"]


def test_recipes_are_listed(capsys):
    head, _, *rows, note = output(capsys, "recipes").splitlines()
    assert head.split() == ["recipe", "model", "operator", "data", "epochs"]
    assert [row.split()[0] for row in rows] == recipe_names()
    assert ["cifar10_resnet20", "cifar_resnet20", "dense", "cifar10", "164"] in [row.split() for row in rows]
    assert "leanconv train --recipe NAME" in note
    assert any("leanconv recipes" in line for line in help_lines("train"))


def test_names_are_watched_once_it_takes_long(monkeypatch, capsys):
    assert list(watched(["a", "b"], "counting")) == ["a", "b"]
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    assert list(watched(["a", "b"], "counting")) == ["a", "b"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("leanconv.cli.output.PATIENCE", -1.0)
    assert list(watched(["a", "b"], "counting")) == ["a", "b"]
    assert "counting" in capsys.readouterr().err


def test_the_doctor_tells_what_runs(capsys):
    text = output(capsys, "doctor")
    assert "CPU kernels" in text
    assert "OpenMP runtimes" in text


@pytest.mark.parametrize("operator", ["asymmetric", "ghost:ratio=3", "split:alpha=0.25", "ddf:combine=add"])
def test_each_operator_from_swap_to_fused_file(capsys, tmp_path, checkpoint, operator):
    lean, fused = str(tmp_path / "lean.safetensors"), str(tmp_path / "fused.safetensors")
    main(["swap", str(checkpoint), operator, "--out", lean])
    main(["fuse", lean, "--out", fused])
    capsys.readouterr()
    one, other = (load_model(path)[0] for path in (lean, fused))
    image = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(other(image), one(image), rtol=1e-3, atol=1e-4)
    assert "fused.safetensors" in output(capsys, "profile", fused, "--no-latency")


def test_networks_of_another_size_are_watched_at_it(capsys, tmp_path):
    source = tmp_path / "small.py"
    source.write_text(
        "from torch import nn\n"
        "def net():\n"
        "    pair = lambda i, o: [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()]\n"
        "    return nn.Sequential(*pair(3, 8), *pair(8, 8), nn.Flatten(), nn.Linear(8 * 32 * 32, 2))\n")
    name = f"{source}:net"
    text = output(capsys, "plan", name, "asymmetric", "--image-size", "32")
    assert "2 of 2 layers taken" in text
    assert "example" in complaint(capsys, "plan", name, "asymmetric")
    output(capsys, "profile", name, "--operators", "dense,asymmetric", "--shape", "1,3,32,32", "--no-latency")


def test_plan_shows_choices_and_writes_them(capsys, tmp_path):
    path = tmp_path / "plan.yaml"
    conditions = ["--where", "layer*.conv1", "--stage", "3", "--min-channels", "64", "--kernel-size", "3"]
    text = output(capsys, "plan", "cifar_resnet20", "tied:blocks=4", *conditions, "--out", str(path))
    assert "tied:blocks=4" in text
    assert "layer1.0.conv1" in text
    assert f"wrote {path}" in text
    plan = Plan.load(path)
    assert [choice.name for choice in plan.taken] == ["layer3.1.conv1", "layer3.2.conv1"]
    assert plan.settings == {"blocks": 4}
    assert "stem" not in output(capsys, "plan", "cifar_resnet20", "tied", "--in-chans", "4", "--scope", "all")


def test_swap_writes_the_weights_and_the_plan(capsys, tmp_path, checkpoint):
    path = tmp_path / "lean.safetensors"
    text = output(capsys, "swap", str(checkpoint), "tied:blocks=2", "--where", "layer3.*", "--out", str(path))
    assert "6 of 19 layers taken" in text
    dense = load_model(checkpoint)[0]
    expected = leanconv.swap(dense, leanconv.plan(dense, "tied:blocks=2", where="layer3.*")).state_dict()
    tensors = load_file(path)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    plan = tmp_path / "plan.yaml"
    main(["plan", str(checkpoint), "tied:blocks=2", "--where", "layer3.*", "--out", str(plan)])
    main(["swap", str(checkpoint), "--plan", str(plan), "--out", str(tmp_path / "again.safetensors")])
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


NET = """
from __future__ import annotations
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes: int = 7):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, input):
        return self.fc(self.conv2(self.conv1(input)).mean((2, 3)))
"""


@pytest.mark.parametrize("given", [[], ["--num-classes", "4"]])
def test_a_network_of_the_users_own_is_swapped_and_read_again(capsys, tmp_path, given):
    source, path = tmp_path / "net.py", tmp_path / "lean.safetensors"
    source.write_text(NET)
    main(["swap", f"{source}:Net", "tied:blocks=2", *given, "--out", str(path)])
    network, _ = load_model(path)
    assert network.fc.out_features == (4 if given else 7)
    assert type(network.conv2).__name__ == "TiedConv2d"


def test_options_that_would_be_ignored_are_refused(capsys, tmp_path, checkpoint):
    out = ["--out", str(tmp_path / "lean.safetensors")]
    for options in (["--num-classes", "10"], ["--in-chans", "3"], ["--pretrained"]):
        assert f"{options[0]} can't be given: the checkpoint" in complaint(
            capsys, "swap", str(checkpoint), "tied", *options, *out
        )
    for options in (
        ["--where", "*"],
        ["--kernel-size", "3"],
        ["--stage", "1"],
        ["--min-channels", "1"],
        ["--scope", "published"],
    ):
        text = complaint(capsys, "swap", str(checkpoint), "--plan", "plan.yaml", *options, *out)
        assert f"{options[0]} can't be given: the plan" in text


def test_a_fused_checkpoint_is_not_swapped(capsys, tmp_path, checkpoint):
    fused, out = tmp_path / "fused.safetensors", tmp_path / "lean.safetensors"
    main(["fuse", str(checkpoint), "--out", str(fused)])
    assert "swap first, then fuse" in complaint(capsys, "swap", str(fused), "tied", "--out", str(out))
    assert "swap first, then fuse" in complaint(capsys, "plan", str(fused), "tied")
    assert not out.exists()


def test_the_folder_of_a_training_stands_for_its_checkpoint(capsys, tmp_path, checkpoint):
    folder, out = str(checkpoint.parent), tmp_path / "out.safetensors"
    assert output(capsys, "plan", folder, "tied") == output(capsys, "plan", str(checkpoint), "tied")
    assert "1×1×16×16" in output(capsys, "profile", folder, "--no-latency")
    for command in (["swap", folder, "tied"], ["fuse", folder]):
        assert f"wrote {out}" in output(capsys, *command, "--out", str(out))
        out.unlink()


def test_a_folder_named_as_a_model_does_not_hide_it(capsys, tmp_path, monkeypatch):
    (tmp_path / "cifar_resnet20").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "layer3.1.conv1" in output(capsys, "plan", "cifar_resnet20", "tied")


@pytest.mark.parametrize(("missing", "code"), [("lightning.pytorch", 2), ("leanconv.tasks.nothing", None)])
def test_a_missing_package_is_named_with_its_remedy(capsys, monkeypatch, missing, code):
    def fail(*args, **options):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr("leanconv.models.list_models", fail)
    if code is None:
        with pytest.raises(ModuleNotFoundError):
            main(["models"])
    else:
        message = "leanconv: this command needs lightning: pip install 'leanconv[train]'\n"
        assert complaint(capsys, "models") == message


def test_the_command_starts_with_what_a_plain_installation_brings():
    code = """
import sys
for name in ("jinja2", "lightning", "matplotlib", "safetensors", "sklearn", "timm", "torchmetrics", "torchvision"):
    sys.modules[name] = None
from leanconv.cli import main
main(["ops"])
main(["models"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "tied " in done.stdout
    assert (done.returncode, done.stderr) == (2, "leanconv: this command needs timm: pip install 'leanconv[train]'\n")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert any(each.startswith("cyclopts") for each in project["dependencies"])
    assert project["dynamic"] == ["version"]


def test_operators_are_split_as_the_user_wrote_them():
    assert split_operators(["dense,", "tied", ",tied:blocks=4"]) == ["dense", "tied", "tied:blocks=4"]


def test_profile_compares_operators_by_turns(capsys):
    tokens = ["profile", "cifar_resnet20", "--operators", "dense,tied:blocks=2,tied-se:blocks=2,reduction=4"]
    text = output(capsys, *tokens, "--rounds", "2", "--channels-last", "--dtype", "bfloat16", "--num-classes", "100")
    assert "275.6 ×1.00" in text
    assert "cifar_resnet20 tied:blocks=2" in text
    assert "cifar_resnet20 tied-se:blocks=2,reduction=4" in text
    assert "1×3×32×32, bfloat16, channels_last, inference" in text
    assert "2 interleaved rounds" in text


def test_profile_fuses_and_breaks_down(capsys, checkpoint):
    tokens = ["profile", str(checkpoint), "--fused", "--layers", "--no-latency", "--shape", "2,1,8,8"]
    text = output(capsys, *tokens)
    assert "2×64×2×2" in text
    assert "BatchNorm2d" not in text
    assert " ms " not in text
    assert "1×1×16×16" in output(capsys, "profile", str(checkpoint), "--rounds", "1")


def test_train_eval_and_fuse_follow_each_other(capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 3\nwarmup_epochs: 0\nbatch_size: 32\n")
    folder = tmp_path / "run"
    tokens = ["train", "--recipe", str(recipe), "--epochs", "1", "--limit", "96", "--operator", "tied:blocks=2"]
    text = output(capsys, *tokens, "--no-augment", "--out", str(folder))
    assert "s of training" in text
    stored = Recipe.load(folder / "recipe.yaml")
    assert (stored.epochs, stored.batch_size, stored.limit, stored.augment) == (1, 32, 96, False)
    assert stored.operator == "tied:blocks=2"
    first = (folder / "model.safetensors").read_bytes()
    assert output(capsys, *tokens, "--no-augment", "--out", str(folder)) == text
    assert (folder / "model.safetensors").read_bytes() == first

    accuracy = text.split()[1]
    assert f"accuracy {accuracy}" in output(capsys, "eval", str(folder))
    assert "20 images" in output(capsys, "eval", str(folder / "model.safetensors"), "--limit", "20")

    path = tmp_path / "fused.safetensors"
    text = output(capsys, "fuse", str(folder / "model.safetensors"), "--out", str(path))
    assert "untied, layer1.0.bn2 folded in" in text
    network = load_model(folder / "model.safetensors")[0].to(memory_format=torch.channels_last)
    expected = fuse(network, torch.randn(1, 1, 16, 16).to(memory_format=torch.channels_last)).state_dict()
    tensors = load_file(path)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)


def test_compare_leaves_a_table_and_a_report(capsys, tmp_path):
    out = tmp_path / "comparison"
    tokens = ["compare", "--operators", "dense,tied:blocks=2", "--seeds", "1", "--out", str(out)]
    recipe = ["--epochs", "1", "--warmup-epochs", "0", "--limit", "64", "--batch-size", "32", "--image-size", "8"]
    text = output(capsys, *tokens, *recipe)
    assert "cifar_resnet20 on digits" in text
    assert text.endswith(f"report: {out / 'report.html'}\n")
    page = (out / "report.html").read_text()
    assert all(part in page for part in ("tied:blocks=2", "How alike its filters are", "Where it looks"))
    assert [row["operator"] for row in csv_rows(out / "results.csv")] == ["dense", "tied:blocks=2"]


def test_the_folder_of_a_training_is_named_after_its_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["train", "--epochs", "1", "--warmup-epochs", "0", "--limit", "32", "--batch-size", "32", "--seed", "3"])
    assert (tmp_path / "runs" / "cifar_resnet20-dense-digits-seed3" / "result.json").exists()


def test_recipes_of_one_network_have_folders_of_their_own():
    names = {run_name(load_recipe(name), Path(name)) for name in recipe_names()}
    assert len(names) == len(recipe_names())
    by_factor = {run_name(DepthRecipe(data="depth:one", factor=factor)) for factor in (4, 8, 16)}
    assert by_factor == {f"ddf_up_net-x{factor}-dense-depth-one-seed0" for factor in (4, 8, 16)}
    detection = DetectionRecipe(data="coco:one", backbone="resnet18")
    assert run_name(detection) == "faster-rcnn-resnet18-dense-coco-one-seed0"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["trian"], 'Unknown command "trian". Did you mean "train"?'),
        (["train", "--epoch", "3"], "Unknown option: --epoch. Did you mean --epochs?"),
        (["train", "--epochs", "three"], "Invalid value for --epochs"),
        (["train", "--epochs", "0"], "recipe key 'epochs' must be at least 1, got 0"),
        (["train", "--data", "digit"], "unknown data source 'digit': did you mean 'digits'?"),
        (["train", "--recipe", "no/such.yaml"], "no/such.yaml"),
        (["plan", "cifar_resnet20", "tide"], "unknown operator 'tide': did you mean 'tied'?"),
        (["plan", "cifar_resnet2O", "tied"], "unknown model 'cifar_resnet2O': did you mean 'cifar_resnet"),
        (["plan", "cifar_resnet20"], "requires an argument"),
        (["plan", "cifar_resnet20", "tied", "--scope", "al"], "unknown scope 'al'"),
        (["plan", "cifar_resnet20", "tied", "--out", "/no/such/folder/plan.yaml"], "/no/such/folder/plan.yaml"),
        (["models", "cifar_resnext*"], "unknown model 'cifar_resnext*': did you mean"),
        (["swap", "cifar_resnet20", "--out", "x"], "swap needs either an operator or --plan FILE"),
        (["swap", "cifar_resnet20", "tied", "--plan", "p", "--out", "x"], "either an operator or --plan FILE"),
        (["swap", "cifar_resnet20", "--plan", "no.yaml", "--out", "x.safetensors"], "no.yaml"),
        (["swap", "cifar_resnet20", "tied:blocks=5", "--out", "x.safetensors"], "takes none of the model's 19 layers"),
        (["profile"], "profile needs at least one model"),
        (["plan", "cifar_resnet20", "tied", "--image-size", "0"], "image_size must be at least 1, got 0"),
        (["profile", "cifar_resnet20", "--shape", "1,3,x"], "shape must be numbers with commas in between"),
        (["profile", "cifar_resnet20", "--shape", "1,3,32"], "whole numbers (N, C, H, W), got (1, 3, 32)"),
        (["profile", "cifar_resnet20", "--shape", "1,4,32,32"], "can't run on an input of shape (1, 4, 32, 32)"),
        (["profile", "cifar_resnet20", "--device", "cuda:99"], "device 'cuda:99' can't be used here"),
        (["profile", "cifar_resnet20", "--dtype", "float31"], "unknown dtype 'float31': did you mean 'float32'"),
        (["eval", "no_such_folder"], "no_such_folder"),
        (["compare", "--operators", "dense,tide"], "unknown operator 'tide': did you mean 'tied'?"),
        (["compare", "--seed", "3"], "Unknown option: --seed"),
        (["compare", "--batch-siz", "3"], "Did you mean --batch-size?"),
        (["models", "qqqq*"], "unknown model 'qqqq*': list them with: leanconv models PATTERN"),
        (["train", "--operator", "xyz"], "unknown operator 'xyz': valid are 'asymmetric', 'ddf'"),
        (["compare", "--operators", "xyz"], "unknown operator 'xyz': valid are 'asymmetric', 'ddf'"),
        (["profile", "cifar_resnet20", "--operators", "xyz"], "unknown operator 'xyz': valid are 'asymmetric', 'ddf'"),
        (["profile", "cifar_resnet20", "--operators", "dense:blocks=2"], "'dense' has no settings"),
        (["profile", "cifar_resnet20", "--operators", ","], "operators must be at least one, each once, got none"),
        (["profile", "cifar_resnet20", "--operators", "tied", "tied:blocks=2"], "each once, got tied, tied:blocks=2"),
        (["profile", "vit_tiny_patch16_224", "--shape", "1,3,32,32"], "can't run on an input of shape (1, 3, 32, 32)"),
        (["swap", "cifar_resnet20", "tied", "--out", "x.pt"], "out must end in .safetensors, got 'x.pt'"),
        (["fuse", "x.safetensors", "--out", "x"], "out must end in .safetensors, got 'x'"),
        (["fuse", __file__, "--out", "x.safetensors"], "cannot read the checkpoint"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, tokens, message):
    assert message in complaint(capsys, *tokens)


def test_an_option_without_a_value_empties_a_list(capsys):
    tokens = ["train", "--recipe", "imagenet_tied_resnet50", "--data", "imagefolder:/no/such", "--schedule", "cosine"]
    assert "'decay_epochs' must be empty" in complaint(capsys, *tokens)
    assert "got /no/such, which isn't one" in complaint(capsys, *tokens, "--decay-epochs")


def test_the_traceback_is_there_when_asked_for(monkeypatch):
    monkeypatch.setenv("LEANCONV_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown operator"):
        main(["plan", "cifar_resnet20", "tide"])


def test_mistakes_end_the_process_with_2_and_nothing_on_stdout():
    done = run("profile")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "leanconv: profile needs at least one model, as in: leanconv profile resnet50\n"


def test_a_reader_that_leaves_early_causes_no_complaint():
    for tokens in (["--help"], ["ops"]):
        command = [sys.executable, "-m", "leanconv.cli", *tokens]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1
        process.stderr.close()


def test_ctrl_c_ends_a_training_with_130_and_repeating_resumes(tmp_path):
    folder = tmp_path / "run"
    tokens = ["train", "--epochs", "15", "--limit", "32", "--batch-size", "32", "--out", str(folder)]
    command = [sys.executable, "-m", "leanconv.cli", *tokens]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (folder / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "leanconv: interrupted; repeat the command to resume"
    assert "Traceback" not in err
    finished = (folder / "metrics.csv").read_text().splitlines()[1:]
    assert 1 <= len(finished) < 15
    main(tokens)
    resumed = (folder / "metrics.csv").read_text().splitlines()[1:]
    assert len(resumed) == 15
    assert resumed[: len(finished)] == finished
