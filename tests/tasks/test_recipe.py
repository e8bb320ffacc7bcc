import dataclasses
from pathlib import Path

import pytest

from leanconv.tasks import Recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


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
    documentation = Recipe.__doc__ or ""
    names = [field.name for field in dataclasses.fields(Recipe)]
    assert [name for name in names if f"\n        {name}: " not in documentation] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_published_recipes_parse(path):
    assert Recipe.load(path).epochs >= 1


def test_recipes_are_there():
    assert {path.stem for path in RECIPES} >= {"digits", "cifar10", "imagenet"}


def test_the_recipe_of_the_digits_is_the_default():
    assert Recipe.load(next(path for path in RECIPES if path.stem == "digits")) == Recipe()
