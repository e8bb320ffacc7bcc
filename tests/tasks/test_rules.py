import pytest

from leanconv.tasks import Recipe


@pytest.mark.parametrize(("key", "value", "message"), [
    ("epochs", 0, "must be at least 1, got 0"),
    ("epochs", True, "must be of type int, got True"),
    ("epochs", 2.5, "must be of type int, got 2.5"),
    ("batch_size", "64", "must be of type int, got '64'"),
    ("lr", 0.0, "must be above 0, got 0.0"),
    ("lr", float("nan"), "must be above 0, got nan"),
    ("lr", "fast", "must be of type float, got 'fast'"),
    ("momentum", 1, "below 1, got 1.0"),
    ("weight_decay", -1e-4, "must be at least 0"),
    ("label_smoothing", 1.0, "below 1"),
    ("mixup", -0.1, "at least 0"),
    ("ema", 1.0, "below 1"),
    ("augment", 1, "must be of type bool, got 1"),
    ("image_size", 0, "at least 1"),
    ("limit", -1, "at least 0"),
    ("seed", -1, "at least 0"),
    ("model", "", "must be named, got ''"),
    ("weights", 3, "must be of type Path | None, got 3"),
    ("decay_epochs", ["a"], "must be of type tuple"),
    ("decay_epochs", (5, 3), "must be rising"),
    ("decay_epochs", (5,), r"must be empty with the schedule 'cosine', got \(5,\)"),
    ("schedule", "cosin", "did you mean 'cosine'"),
    ("schedule", "steps", "must name at least one epoch"),
    ("precision", "fp16", "did you mean"),
    ("bad_images", "ignore", "valid are 'refuse', 'skip', 'unchecked'"),
    ("accelerator", "tpu", "did you mean|valid are"),
    ("strategy", "dpp", "did you mean 'ddp'"),
    ("optimizer", "sgdd", "unknown optimizer 'sgdd': did you mean 'sgd'"),
    ("operator", "tide", "unknown operator 'tide'"),
    ("data", "cifar1", "unknown data source 'cifar1': did you mean 'cifar10'"),
    ("data", "arrays", "must be of the form 'arrays:FILE.npz', got 'arrays'"),
    ("data", "digits:8", "must be of the form 'digits', got 'digits:8'"),
    ("warmup_epochs", 99, "must be at most epochs"),
    ("bias_lr", 0, "must be above 0"),
    ("min_lr", -1.0, "must be at least 0"),
    ("min_lr", 0.2, r"must be at most lr \(0.1\), got 0.2"),
    ("min_lr", float("nan"), "must be at least 0, got nan"),
    ("warmup_lr", 0.2, r"must be at most lr \(0.1\), got 0.2"),
    ("warmup_lr", -0.1, "must be at least 0"),
    ("cooldown_epochs", -1, "must be at least 0"),
    ("cooldown_epochs", 7, "must leave some of the 8 epochs after 1 of warm-up, got 7"),
    ("weight_decay_all", 1, "must be of type bool"),
    ("mean", (0.5,), r"must have equal lengths, got \(0.5,\) and \(\)"),
    ("mean", (2,), "must be from 0 to 1"),
    ("mean", 0.5, r"must be of type tuple\[float, ...\], got 0.5"),
    ("mean", ("half",), "must be of type float, got 'half'"),
    ("std", (0.0,), "must be above 0"),
    ("crop_area", (0.1,), "must be two rising shares"),
    ("crop_area", (1.0, 0.1), "must be two rising shares"),
    ("crop_area", (0.1, 1.5), "at most 1"),
    ("crop_area", (0.1, 1.0), "'crop_area' needs data of the form 'imagefolder:PATH'"),
    ("crop_aspect", (0.0, 1.0), "must be two rising numbers above 0"),
    ("crop_aspect", (1.0, 1.0), "'crop_aspect' needs data"),
    ("color_jitter", 1.5, "must be from 0 to 1"),
    ("color_jitter", 0.4, "'color_jitter' needs data"),
    ("rand_augment", "rand-m7", "'rand_augment' needs data"),
    ("rand_augment", "rand-mmany7", "must be in timm's notation, such as 'rand-m7-mstd0.5-inc1', got 'rand-mmany7'"),
    ("rand_augment", "original", "must be in timm's notation"),
    ("erasing", 1.1, "must be from 0 to 1"),
    ("erasing", 0.4, "'erasing' needs data"),
    ("erasing_count", 0, "must be at least 1"),
    ("erasing_count", 2, "'erasing_count' needs data"),
    ("devices", 3, "must be a multiple of 3"),
])
def test_a_wrong_value_is_refused(key, value, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{key: value})


def test_rules_across_keys():
    with pytest.raises(ValueError, match=r"'decay_epochs' must be below epochs \(4\), got \(2, 4\)"):
        Recipe(schedule="steps", decay_epochs=(2, 4), epochs=4)
    with pytest.raises(ValueError, match=r"multiple of 2 \(twice the processes"):
        Recipe(mixup=0.2, batch_size=33)
    with pytest.raises(ValueError, match="'ema' must be 0"):
        Recipe(ema=0.9, strategy="fsdp")
    with pytest.raises(ValueError, match="'strategy' must be"):
        Recipe(strategy="fsdp", accelerator="cpu")
    for key, value in (("min_lr", 0.01), ("cooldown_epochs", 2)):
        with pytest.raises(ValueError, match=f"'{key}' needs the schedule 'cosine', got {value} for 'constant'"):
            Recipe(schedule="constant", **{key: value})
    with pytest.raises(ValueError, match=r"'color_jitter' must be 0 with rand_augment, got 0\.4"):
        Recipe(data="imagefolder:flowers", color_jitter=0.4, rand_augment="rand-m7")
    with pytest.raises(ValueError, match="'weights' must be empty"):
        Recipe(pretrained=True, weights="a.safetensors")


def test_loose_values_take_their_strict_form():
    recipe = Recipe(lr=1, schedule="steps", decay_epochs=[2, 4], data_root="here", weight_decay="1e-4")
    assert (recipe.lr, recipe.decay_epochs, recipe.weight_decay) == (1.0, (2, 4), 1e-4)
    assert type(recipe.lr) is float
    assert Recipe(mean=[0, "5e-1", 1], std=[1, 1, 1]).mean == (0.0, 0.5, 1.0)
    assert recipe.data_root is not None
    assert recipe.data_root.name == "here"


def test_any_optimiser_of_timm_is_known():
    assert Recipe(optimizer="lamb").optimizer == "lamb"
