import dataclasses
from pathlib import Path

import pytest

from leanconv.tasks import Recipe


def test_a_saved_recipe_loads_as_it_was(tmp_path):
    recipe = Recipe(operator="tied:blocks=2", schedule="steps", decay_epochs=(3, 5), weights=Path("a.safetensors"))
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_overrides_take_the_place_of_the_file(tmp_path):
    (tmp_path / "recipe.yaml").write_text("epochs: 5\nlr: 1e-2\n")
    recipe = Recipe.load(tmp_path / "recipe.yaml", epochs=7)
    assert (recipe.epochs, recipe.lr) == (7, 0.01)


def test_an_empty_file_is_the_default_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text("# all defaults\n")
    assert Recipe.load(tmp_path / "recipe.yaml") == Recipe()


def test_unknown_key_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown recipe key 'epoch': did you mean 'epochs'"):
        Recipe.of({"epoch": 3})


@pytest.mark.parametrize(("text", "message"), [
    ("- 1\n- 2\n", "must be keys with values, got list"),
    ("epochs: [1", "cannot read the recipe"),
    ("epochs: many", r"'epochs' must be of type int, got 'many'"),
])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, message):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.load(tmp_path / "recipe.yaml")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the recipe .*No such file"):
        Recipe.load(tmp_path / "recipe.yaml")


def test_every_key_is_explained():
    documentation = "".join(kind.__doc__ or "" for kind in Recipe.__mro__)
    names = [field.name for field in dataclasses.fields(Recipe)]
    assert [name for name in names if f"\n        {name}: " not in documentation] == []


def test_a_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.load("imagenet_tied_resnet50", data="imagefolder:here", workers=2)
    assert (recipe.model, recipe.epochs, recipe.data, recipe.workers) == (
        "tied_resnet50", 100, "imagefolder:here", 2
    )


def test_an_unknown_name_tells_the_nearest():
    with pytest.raises(ValueError, match="unknown recipe 'imagenet_tied': did you mean 'imagenet_tied_resnet50'"):
        Recipe.load("imagenet_tied")


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("epochs: 3\n")
    assert Recipe.load("digits").epochs == 3
    Path("digits").unlink()
    Path("digits").mkdir()
    assert Recipe.load("digits") == Recipe()


def test_the_recipe_of_the_digits_is_the_default():
    assert Recipe.load("digits") == Recipe()
