"""A plan: for each layer of a model, whether an operator takes it, or why not. Plans are data, and live as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from leanconv.errors import unknown
from leanconv.surgery.operators import OPERATORS, format_operator, parse_operator
from leanconv.surgery.sites import Where, describe, selector
from leanconv.table import Table

SCOPES = ("published", "all")


@dataclass(frozen=True)
class Choice:
    """What a plan says of one layer.

    Args:
        name: its path in the model.
        layer: what it is, such as "3x3 64→128 /2".
        skipped: the reason for leaving it as it is, or None where it is taken.
        parameters: how many it has.
        becomes: how many it will have, where it is taken; 0 where nobody counted, as after editing by hand.
        settings: settings for this layer alone, over the plan's.
        norm: the path of the norm whose place the new layer's own norms take, for operators that have some.
    """

    name: str
    layer: str
    skipped: str | None = None
    parameters: int = 0
    becomes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    norm: str | None = None

    def says(self) -> str:
        """The reason for skipping, or what the layer gains."""
        if self.skipped:
            return self.skipped
        own = f"({format_operator('', self.settings)[1:]})" if self.settings else ""
        counted = f"{self.parameters:,} → {self.becomes:,} parameters" if self.becomes else ""
        return " ".join(filter(None, (counted, f"with {self.norm}" if self.norm else "", own)))


@dataclass(frozen=True)
class Plan:
    """What an operator is to do with a model: printed as a table, kept as YAML, carried out by `swap`.

    Args:
        operator: its name.
        settings: its settings, all of them.
        choices: one for each layer that the operator considers.
    """

    operator: str
    settings: Mapping[str, Any]
    choices: tuple[Choice, ...]

    @property
    def taken(self) -> list[Choice]:
        """The layers that will be swapped."""
        return [choice for choice in self.choices if choice.skipped is None]

    def table(self) -> Table:
        """The plan as a table."""
        rows = [[choice.name, choice.layer, "skipped" if choice.skipped else "taken", choice.says()]
                for choice in self.choices]
        summary = f"{len(self.taken)} of {len(self.choices)} layers taken"
        if self.taken and all(choice.becomes for choice in self.taken):
            before, after = (sum(getattr(choice, key) for choice in self.taken) for key in ("parameters", "becomes"))
            summary += f": {before:,} → {after:,} parameters in them"
        return Table(["layer", "what", "", ""], rows, format_operator(self.operator, self.settings), [summary])

    def __rich__(self) -> Any:
        return self.table().__rich__()

    def __str__(self) -> str:
        return str(self.table())

    def to_yaml(self) -> str:
        """The plan as YAML, for `from_yaml`. Edit it: delete or add a `skipped`, give a layer its own `settings`."""
        layers = [
            {key: value if key != "settings" else dict(value) for key, value in vars(choice).items() if value}
            for choice in self.choices
        ]
        content = {"operator": self.operator, "settings": dict(self.settings), "layers": layers}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def from_yaml(cls, text: str) -> Plan:
        """Reads a plan.

        Raises:
            ValueError: for text that isn't a plan, naming what is wrong with it.
        """
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"plan must be YAML: {error}") from error
        if not isinstance(content, dict) or set(content) != {"operator", "settings", "layers"}:
            raise ValueError("plan must have the keys operator, settings and layers, and no others")
        if not isinstance(content["settings"], dict) or not isinstance(content["layers"], list):
            raise ValueError("the settings of a plan must be a mapping, and its layers a list")
        name, given = parse_operator(str(content["operator"]))
        operator = OPERATORS[name]
        choices: list[Choice] = []
        for layer in content["layers"]:
            if not isinstance(layer, dict) or not {"name", "layer"} <= set(layer):
                raise ValueError(f"each layer of a plan must have a name and a layer, got {layer!r}")
            for key in layer:
                if key not in Choice.__dataclass_fields__:
                    raise unknown("key of a plan's layer", str(key), Choice.__dataclass_fields__)
            if layer["name"] in {choice.name for choice in choices}:
                raise ValueError(f"each layer of a plan must be there once, got {layer['name']!r} twice")
            for key, kind in (("name", str), ("layer", str), ("skipped", str | None), ("settings", dict),
                              ("norm", str | None), ("parameters", int), ("becomes", int)):
                if key in layer and not isinstance(layer[key], kind):
                    raise ValueError(f"{key} of the plan's layer {layer['name']!r} can't be {layer[key]!r}")
            operator.settings(layer.get("settings", {}))
            choices.append(Choice(**layer))
        return cls(name, operator.settings({**given, **content["settings"]}), tuple(choices))

    def save(self, path: str | Path) -> None:
        """Writes the plan to a YAML file."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Reads a plan from a YAML file."""
        return cls.from_yaml(Path(path).read_text(encoding="utf-8"))


def plan(
    model: nn.Module,
    operator: str,
    *,
    where: Where = None,
    scope: str = "published",
    example: Tensor | None = None,
    **settings: Any,
) -> Plan:
    """Says for each layer of a model whether an operator takes it, or why not. Nothing is changed.

    Args:
        model: any module.
        operator: its name, with settings if you like: "tied" or "tied:blocks=4".
        where: narrows the layers: a name pattern, a mapping of conditions (name, kernel_size, stage, min_channels) or a
            predicate of name and module.
        scope: "published" keeps to the layers that the operator's paper applies it to, "all" takes each layer it can.
        example: an input of the model, for operators that must watch it run (all but tied and split); one is made up
            where it is None.
        settings: the operator's own, such as blocks=4.

    Raises:
        ValueError: for an unknown operator, setting, scope or condition.
        TypeError: for a `where` of another type.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    >>> print(plan(model, "tied", blocks=2))
    tied:blocks=2
     layer   what
    ──────────────────────────────────────────────────────
     0       3x3 3→8   skipped   stem: it reads the image
     2       3x3 8→8   taken     584 → 148 parameters
    1 of 2 layers taken: 584 → 148 parameters in them
    """
    name, given = parse_operator(operator)
    chosen = OPERATORS[name]
    complete = chosen.settings({**given, **settings})
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    unmet = selector(where)
    choices = []
    for site in chosen.sites(model, example):
        site = chosen.place(site, complete)
        own = chosen.local(site, complete)
        skipped = (
            (chosen.outside(site) if scope == "published" else None)
            or chosen.refusal(site, {**complete, **own})
            or unmet(site.name, site.module)
        )
        before = parameter_count(site.module) + (parameter_count(site.norm.module) if site.norm else 0)
        after = 0 if skipped else parameter_count(chosen.make(site, {**complete, **own}, "meta"))
        path = site.norm.name if site.norm else None
        choices.append(Choice(site.name, describe(site.module), skipped, before, after, own, path))
    return Plan(name, complete, tuple(choices))


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
