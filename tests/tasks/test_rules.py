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
    ("decay_epochs", (5,), "needs the schedule 'steps'"),
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
    ("devices", 3, "must be a multiple of 3"),
])
def test_a_wrong_value_is_refused(key, value, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{key: value})


def test_rules_across_keys():
    with pytest.raises(ValueError, match=r"multiple of 2 \(twice the processes"):
        Recipe(mixup=0.2, batch_size=33)
    with pytest.raises(ValueError, match="'ema' must be 0"):
        Recipe(ema=0.9, strategy="fsdp")
    with pytest.raises(ValueError, match="'strategy' must be"):
        Recipe(strategy="fsdp", accelerator="cpu")
    with pytest.raises(ValueError, match="'weights' must be empty"):
        Recipe(pretrained=True, weights="a.safetensors")


def test_loose_values_take_their_strict_form():
    recipe = Recipe(lr=1, schedule="steps", decay_epochs=[2, 4], data_root="here", weight_decay="1e-4")
    assert (recipe.lr, recipe.decay_epochs, recipe.weight_decay) == (1.0, (2, 4), 1e-4)
    assert type(recipe.lr) is float
    assert recipe.data_root is not None
    assert recipe.data_root.name == "here"


def test_any_optimiser_of_timm_is_known():
    assert Recipe(optimizer="lamb").optimizer == "lamb"
