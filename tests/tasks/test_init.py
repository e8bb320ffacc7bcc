from leanconv import tasks

HEAVY = ("lightning", "timm", "torchvision", "torchmetrics", "sklearn", "matplotlib")


def test_every_public_name_is_there():
    assert [name for name in tasks.__all__ if getattr(tasks, name).__name__ != name] == []
    assert set(tasks.__all__) <= set(dir(tasks))


def test_a_recipe_needs_nothing_heavy(script):
    ran = script(
        "import sys\nfrom leanconv.tasks import Recipe\nRecipe()\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert ran.stdout == "[]\n", ran.stderr
