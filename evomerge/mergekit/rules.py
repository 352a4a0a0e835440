"""mergekit's methods: what each takes, and what it is here.

Every option of ours is set, also where our own default is the same, so that a recipe says what was
done (measured on mergekit 0.1.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from evomerge.errors import InputError, closest
from evomerge.mergekit.values import Number, Value
from evomerge.mergekit.where import Where
from evomerge.methods import METHODS, MethodConfig

Options = Callable[[Mapping[str, Value], bool], dict[str, Any]]
"""Our options, from the shared values and whether there is a base."""

Own = dict[str, tuple[float, ...]]
"""Values of our parameters that each model has, by name."""

Shared = dict[str, float]
"""Values of our parameters that all models share, by name."""


@dataclass(frozen=True)
class Keyword:
    """A parameter of mergekit's.

    Attributes:
        name: Its name.
        default: Where nothing is said; None: it must be given.
        number: What its numbers may be; None: it is true or false.
        scope: "model": each model has one; "shared": the merge has.
        ours: What our method calls it, where it is a parameter there and not an option.
        is_used: Whether the result depends on it.
        is_silent: Whether it may stand anywhere, and nobody is told that it is not used.
    """

    name: str
    default: Value | None = None
    number: Number | None = None
    scope: Literal["model", "shared"] = "shared"
    ours: str | None = None
    is_used: bool = True
    is_silent: bool = False


@dataclass(frozen=True)
class Rule:
    """A method of mergekit's.

    Attributes:
        kind: What it is called here.
        base: What the base is: "input": a model as any other; "first": the first of the models;
            "origin": of the task vectors; "either": as "origin" where there is one.
        least: Fewest models, the base not counted where it is the origin.
        most: Most models, or None.
        keywords: What it takes, by name.
        options: Our options.
        numbers: Values of our parameters from mergekit's.
    """

    kind: str
    base: Literal["input", "first", "origin", "either"]
    least: int
    most: int | None
    keywords: dict[str, Keyword]
    options: Options
    numbers: Callable[[Own, Shared], tuple[Own, Shared]] = lambda own, shared: (own, shared)

    def config(self, shared: Mapping[str, Value], has_base: bool) -> MethodConfig:
        """Our method with all its options."""
        options = self.options(shared, has_base)
        config = METHODS[self.kind].config.model_validate({"kind": self.kind, **options})
        return cast(MethodConfig, config)


# How mergekit stores masks; its result does not depend on it, and it stands in configurations of
# every method.
INT8_MASK = Keyword("int8_mask", False, is_used=False, is_silent=True)


def _keywords(*keywords: Keyword) -> dict[str, Keyword]:
    return {keyword.name: keyword for keyword in (*keywords, INT8_MASK)}


def _model(name: str, default: float | None, number: Number) -> Keyword:
    return Keyword(name, default, number, "model", name)


WEIGHT = _model("weight", None, Number())
DENSITY = _model("density", 1.0, Number(0.0, 1.0))
LAMBDA = Keyword("lambda", 1.0, Number(), ours="scale")


def _over_task_vectors(
    kind: str, normalize: bool, rescale: bool, options: Options, *more: Keyword
) -> Rule:
    keywords = _keywords(
        WEIGHT,
        DENSITY,
        LAMBDA,
        Keyword("normalize", normalize),
        Keyword("rescale", rescale),
        *more,
    )
    return Rule(kind, "origin", 1, None, keywords, options)


def _ties(values: Mapping[str, Value], _has_base: bool) -> dict[str, Any]:
    return {
        "normalize": values["normalize"],
        "election": "mass",
        "rescale": "l1" if values["rescale"] else "none",
        # A density above 0 keeps one element at least.
        "none_kept": "keep",
        "vectors": "same",
        "equal": "first",
    }


def _masked(values: Mapping[str, Value], _has_base: bool) -> dict[str, Any]:
    return {
        "normalize": values["normalize"],
        "rescale": "l1" if values["rescale"] else "none",
        "vectors": "same",
    }


def _breadcrumbs(values: Mapping[str, Value], _has_base: bool) -> dict[str, Any]:
    if values["rescale"]:
        raise InputError("`rescale: true` of breadcrumbs has no counterpart here")
    # Measured on 0.1.5: where floor(gamma n) is 0 nothing large is dropped, and that is all.
    return {
        "normalize": values["normalize"],
        "empty_top": "drop_none",
        "vectors": "same",
        "equal": "first",
    }


def _dropped_models(own: Own, shared: Shared) -> tuple[Own, Shared]:
    """A density of 0 drops a model: where signs are elected, so does a weight of 0."""
    is_dropped = [density == 0.0 for density in own["density"]]
    if all(is_dropped):
        shared = shared | {"scale": 0.0}
    elif any(is_dropped):
        weights = zip(own["weight"], is_dropped, strict=True)
        own = own | {"weight": tuple(0.0 if dropped else weight for weight, dropped in weights)}
    return own | {"density": tuple(density or 1.0 for density in own["density"])}, shared


def _dropped_tops(own: Own, shared: Shared) -> tuple[Own, Shared]:
    """A density of 1 keeps all whatever gamma is, and a density comes before gamma."""
    gammas = []
    for density, gamma in zip(own["density"], own["gamma"], strict=True):
        if density < 1.0 and density + gamma > 1.0:
            raise InputError(
                f"density {density} and gamma {gamma} are more than 1 together, for which "
                "mergekit drops less than gamma: this has no counterpart here"
            )
        gammas.append(0.0 if density == 1.0 else gamma)
    return own | {"gamma": tuple(gammas)}, shared


def _breadcrumbs_rule(kind: str) -> Rule:
    gamma = _model("gamma", 0.01, Number(0.0, 1.0))
    rule = _over_task_vectors(kind, False, False, _breadcrumbs, gamma)
    return replace(rule, numbers=_dropped_tops)


_EPSILON = _model("epsilon", 0.15, Number(0.0, 1.0))

RULES: dict[str, Rule] = {
    "linear": Rule(
        "linear",
        "input",
        1,
        None,
        _keywords(WEIGHT, Keyword("normalize", True)),
        lambda values, _: {"normalize": values["normalize"]},
    ),
    "passthrough": Rule(
        "linear",
        "input",
        1,
        1,
        # Multiplies the tensors; a linear merge of one model with this weight.
        _keywords(Keyword("scale", 1.0, Number(), "model", "weight")),
        lambda _values, _: {"normalize": False},
    ),
    "slerp": Rule(
        "slerp",
        "first",
        2,
        2,
        _keywords(Keyword("t", None, Number(0.0, 1.0), ours="t")),
        lambda _values, _: {},
    ),
    "nuslerp": Rule(
        "nuslerp",
        "either",
        2,
        2,
        _keywords(WEIGHT, Keyword("nuslerp_flatten", True), Keyword("nuslerp_row_wise", False)),
        lambda values, has_base: {
            "base": has_base,
            "flatten": values["nuslerp_flatten"],
            "row_wise": values["nuslerp_row_wise"],
        },
    ),
    "multislerp": Rule(
        "multislerp",
        "either",
        1,
        None,
        _keywords(WEIGHT, Keyword("normalize_weights", True), Keyword("eps", 1e-8, Number(0.0))),
        lambda values, has_base: {
            "base": has_base,
            "normalize_weights": values["normalize_weights"],
            "eps": values["eps"],
        },
    ),
    "karcher": Rule(
        "karcher",
        "input",
        1,
        None,
        _keywords(
            Keyword("max_iter", 10.0, Number(0.0, is_whole=True)),
            Keyword("tol", 1e-5, Number(0.0)),
        ),
        lambda values, _: {"max_iter": int(values["max_iter"]), "tol": values["tol"]},
    ),
    "task_arithmetic": Rule(
        "task_arithmetic",
        "origin",
        1,
        None,
        _keywords(
            WEIGHT,
            LAMBDA,
            Keyword("normalize", False),
            Keyword("density", 1.0, Number(0.0, 1.0), "model", is_used=False),
            Keyword("rescale", False, is_used=False),
        ),
        lambda values, _: {"normalize": values["normalize"]},
    ),
    "ties": replace(_over_task_vectors("ties", True, False, _ties), numbers=_dropped_models),
    "dare_linear": _over_task_vectors("dare_linear", False, True, _masked),
    "dare_ties": _over_task_vectors("dare_ties", False, True, _masked),
    "breadcrumbs": _breadcrumbs_rule("breadcrumbs"),
    "breadcrumbs_ties": _breadcrumbs_rule("breadcrumbs_ties"),
    "della": replace(
        _over_task_vectors("della", True, True, _masked, _EPSILON), numbers=_dropped_models
    ),
    "della_linear": _over_task_vectors("della_linear", False, True, _masked, _EPSILON),
    "sce": Rule(
        "sce",
        "origin",
        1,
        None,
        _keywords(Keyword("select_topk", 1.0, Number(0.0, 1.0), ours="select_topk")),
        lambda _values, _: {"even_below": 1e-6, "vectors": "same", "equal": "first"},
    ),
    "model_stock": Rule(
        "model_stock",
        "origin",
        2,
        None,
        _keywords(Keyword("filter_wise", False)),
        lambda values, _: {"clamp": False, "filter_wise": values["filter_wise"]},
    ),
}

OF_OTHERS = ("r", "alpha")
"""Parameters of ramplus_tl, which is not supported; those of the others are known besides."""

KEYWORDS = tuple(
    dict.fromkeys([*(name for rule in RULES.values() for name in rule.keywords), *OF_OTHERS])
)
"""Parameters of all methods of mergekit's."""

NOT_SUPPORTED = ("arcee_fusion", "nearswap", "ram", "ramplus_tl")
"""mergekit's other methods."""


def rule_of(method: object, where: Where) -> Rule:
    """The rule of a method by mergekit's name.

    Raises:
        InputError: It is none of mergekit's, or not supported.
    """
    if isinstance(method, str) and method in RULES:
        return RULES[method]
    if method in NOT_SUPPORTED:
        raise InputError(
            f"{where}: mergekit's method {method!r} is not supported; valid: {', '.join(RULES)}"
        )
    raise InputError(f"{where}: no method {method!r}; {closest(str(method), RULES)}")
