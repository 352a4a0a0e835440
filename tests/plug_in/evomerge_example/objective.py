"""An objective of another package: how many models a candidate is made from."""

from typing import Literal

from evomerge.objectives import ObjectiveConfig, ObjectiveKind


class NumModelsConfig(ObjectiveConfig):
    kind: Literal["num_models"] = "num_models"


class NumModels(ObjectiveKind):
    higher_is_better = False

    def exact(self, recipe, pool):
        return float(len(recipe.members))


def register(objectives):
    objectives.add(NumModelsConfig, NumModels)
