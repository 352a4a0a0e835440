"""Implementations by name: what is registered, what is not, and what other packages offer."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ValidationError

from evomerge import registry as registry_module
from evomerge.errors import InputError
from evomerge.registry import Choice, Registry


class OneConfig(Choice):
    kind: Literal["one"] = "one"
    size: int = 1


class TwoConfig(Choice):
    kind: Literal["two"] = "two"


@pytest.fixture
def registry():
    made = Registry("thing", "evomerge.no_such_group", default="one")
    made.add(OneConfig, lambda config, *rest: ("one", config.size, *rest))
    return made


def offer(monkeypatch, *functions):
    """Let another package have registered these under the group."""

    class Point:
        def __init__(self, function):
            self.load = lambda: function

    points = [Point(function) for function in functions]
    monkeypatch.setattr(
        registry_module,
        "entry_points",
        lambda group: points if group == "evomerge.no_such_group" else [],
    )


def test_makes_what_the_configuration_names(registry):
    assert list(registry) == ["one"]
    assert registry.make(OneConfig(size=3), "argument") == ("one", 3, "argument")
    assert registry["one"].config is OneConfig


def test_a_name_that_is_taken(registry):
    registry.add(TwoConfig, tuple)
    with pytest.raises(ValueError, match="thing 'two' is registered twice"):
        registry.add(TwoConfig, tuple)
    assert list(registry) == ["one", "two"]


def test_a_name_that_nobody_has(registry):
    with pytest.raises(InputError) as error:
        registry["onne"]
    assert str(error.value) == "no thing 'onne'; did you mean 'one'? valid: one"


def test_other_packages_are_asked_once_and_only_for_what_is_missing(registry, monkeypatch):
    asked = []
    offer(monkeypatch, lambda to: (asked.append(to), to.add(TwoConfig, tuple)))
    assert registry["one"].config is OneConfig and asked == []
    assert registry["two"].config is TwoConfig and asked == [registry]
    with pytest.raises(InputError):
        registry["three"]
    assert asked == [registry]


def test_as_an_annotation_it_is_a_union_of_all(registry, monkeypatch):
    offer(monkeypatch, lambda to: to.add(TwoConfig, tuple))

    class Whole(BaseModel):
        part: Annotated[Choice, registry]

    assert Whole(part={"kind": "two"}).part == TwoConfig()
    # The default is one that does not say its kind.
    assert Whole(part={"size": 5}).part == OneConfig(size=5)
    assert Whole(part=TwoConfig()).part == TwoConfig()
    with pytest.raises(ValidationError, match="three"):
        Whole(part={"kind": "three"})
    with pytest.raises(ValidationError, match="Extra inputs"):
        Whole(part={"kind": "one", "siez": 5})
