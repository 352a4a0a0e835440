"""Mistakes in the options of the parameter space."""

from __future__ import annotations

from bad_input.mistakes import Case, config, space

TIES, LINEAR = {"kind": "ties"}, {"kind": "linear"}


def choice(*methods: dict, **options: object) -> object:
    return config(space={"kind": "parameter", "method": None, "methods": list(methods), **options})


CASES = {
    "no method": Case(
        choice(), ("space: ", "method: this field is required, or methods"), line="space:"
    ),
    "method and methods": Case(
        space(methods=[TIES, LINEAR]), ("space: ", "give method, or methods"), line="space:"
    ),
    "a choice of one": Case(
        choice(TIES), ("space.methods", "two methods or more", "`method`"), line="methods:"
    ),
    "a method twice": Case(
        choice(TIES, LINEAR, TIES), ("space.methods", "ties stands here twice"), line="methods:"
    ),
    "an unknown method of several": Case(
        choice(TIES, {"kind": "dare_tie"}),
        ("space.methods.1", "no kind 'dare_tie'", "did you mean 'dare_ties'?"),
        line="kind: dare_tie",
    ),
    "an unknown option of one of several": Case(
        choice(TIES, {"kind": "linear", "normalise": True}),
        ("space.methods.1.normalise: unknown field", "did you mean 'normalize'?"),
        line="normalise:",
    ),
    "a parameter of no method": Case(
        choice(TIES, LINEAR, vary={"densty": {}}),
        ("space.vary: none of the methods", "'densty'", "did you mean 'density'?"),
    ),
    "one method of several divides by the sum": Case(
        choice(LINEAR, {"kind": "task_arithmetic"}, vary={"weight": {"low": -1.0}}),
        ("space.vary.weight", "sum to zero", "normalize: false"),
    ),
    "one method of several merges two": Case(
        choice({"kind": "slerp"}, LINEAR, experts=["expert0"]),
        ("space.methods", "slerp merges exactly 2"),
    ),
    "a subset of exactly two": Case(
        space(method={"kind": "slerp"}, subset=True),
        ("space.subset", "slerp merges exactly 2", "no subset"),
    ),
    "an unknown sum": Case(
        space(weights_sum="two"),
        ("space.weights_sum", "'free' or 'one'", "got 'two'"),
        line="weights_sum:",
    ),
    "a sum of weights that do not vary": Case(
        space(method=TIES, weights_sum="one", fix={"weight": 1.0}),
        ("space.weights_sum: one", "no weight"),
    ),
    "a sum out of reach": Case(
        space(weights_sum="one", vary={"weight": {"low": 0.1}}),
        ("space.vary.weight", "0.1 to 1.0", "low 0 or less and high 1 or more"),
    ),
    "a start besides a sum": Case(
        space(weights_sum="one", vary={"weight": {"start": 0.2}}),
        ("space.vary.weight", "start", "leave it out"),
    ),
    "depth of no parameter": Case(
        space(over_depth={"wieght": 2}),
        ("space.over_depth", "'wieght' does not vary", "did you mean 'weight'?"),
    ),
    "one control point": Case(
        space(over_depth={"weight": 1}),
        ("space.over_depth.weight", "greater than or equal to 2"),
        line="weight:",
    ),
    "more control points than layers": Case(
        space(over_depth={"weight": 4}),
        ("space.over_depth.weight: 4 control points of 3 layers", "valid: 2 to 3"),
    ),
    "a curve of which some groups know nothing": Case(
        choice(TIES, LINEAR, groups=2, over_depth={"density": 2}),
        ("space.over_depth", "'density'", "groups: whole"),
    ),
    "groups of no parameter": Case(
        space(method=TIES, groups_of={"densty": "whole"}),
        ("space.groups_of", "'densty' does not vary", "did you mean 'density'?"),
    ),
    "unknown groups of a parameter": Case(
        space(method=TIES, groups_of={"density": "layers"}),
        ("space.groups_of.density", "'whole' or 'layer'", "got 'layers'"),
        line="density:",
    ),
    "too many groups of a parameter": Case(
        space(method=TIES, groups_of={"density": 4}),
        ("space.groups_of.density: 4 groups of 3 layers",),
    ),
    "listed groups of a parameter that leave tensors out": Case(
        space(method=TIES, groups_of={"density": [{"name": "attn", "names": ["self_attn"]}]}),
        ("space.groups_of.density: in no group", "embed_tokens"),
    ),
    "listed groups of a parameter with components": Case(
        space(method=TIES, groups_of={"density": {"groups": [{"name": "a"}], "components": True}}),
        ("space.groups_of.density", "components: true"),
        line="density:",
    ),
    "groups of a curve by layer": Case(
        space(method=TIES, groups_of={"weight": "layer"}, over_depth={"weight": 2}),
        ("space.groups_of.weight: layer", "over_depth", "`whole`"),
    ),
    "a fixed number of no dimension": Case(
        space(method=TIES, fix={"weigth/expert0": 0.5}),
        ("space.fix: no dimension 'weigth/expert0'", "did you mean 'weight/expert0'?"),
    ),
    "a range of no dimension": Case(
        space(method=TIES, vary={"weight/expert0/layer0": {}}),
        ("space.vary: no dimension 'weight/expert0/layer0'", "did you mean 'weight/expert0'?"),
    ),
    "a pattern of several parameters": Case(
        space(method=TIES, fix={"*/expert0": 0.5}),
        ("space.fix: '*/expert0' begins with a pattern", "a parameter's name, `use` or `method`"),
    ),
    "a number under vary and fix": Case(
        space(method=TIES, vary={"weight": {}, "weight/expert0": {}}, fix={"weight/expert0": 0.5}),
        ("space: 'weight/expert0' stands under both vary and fix",),
    ),
    "a group without weights": Case(
        space(method=TIES, groups="layer", fix={"weight/*/embedding": 0.0}),
        ("space.fix: all weights of group 'embedding' are 0", "divides", "`normalize: false`"),
    ),
    "a number fixed twice": Case(
        space(method=TIES, fix={"weight/expert0": 0.5, "weight/*": 0.1}),
        ("space.fix: 'weight/expert0' and 'weight/*' both mean 'weight/expert0'",),
    ),
    "a fixed number out of bounds": Case(
        space(method=TIES, fix={"density/expert0": 1.5}),
        ("space.fix.density/expert0", "0.0 to 1.0"),
    ),
    "a range of a choice": Case(
        space(subset=True, vary={"use/expert0": {}}),
        ("space.vary: 'use/expert0' is a choice", "fixed"),
    ),
    "a choice fixed between": Case(
        space(subset=True, fix={"use/expert0": 0.5}),
        ("space.fix: 'use/expert0' is a choice, got 0.5", "from 0 to 1"),
    ),
    "all experts fixed out": Case(
        space(subset=True, fix={"use/*": 0}), ("space.fix: leaves 0 experts", "expected 1")
    ),
    "a fixed weight of a sum": Case(
        space(weights_sum="one", fix={"weight/expert0": 0.5}),
        ("space.fix: 'weight/expert0'", "weights_sum", "leave it out"),
    ),
    "an expert's weights of another sign": Case(
        space(method=LINEAR, vary={"weight/expert0": {"low": -0.5, "high": 0}}),
        ("space.vary.weight", "-0.5 to 1.0", "normalize: false"),
    ),
    "a group without a name": Case(
        space(groups=[{"layers": [0]}]), ("space.groups.0.name: this field is required",)
    ),
    "an unknown field of a group": Case(
        space(groups=[{"name": "rest", "layer": [0]}]),
        ("space.groups.0.layer: unknown field", "did you mean 'layers'?"),
        line="layer:",
    ),
    "an unknown component of a group": Case(
        space(groups=[{"name": "a", "components": ["atention"]}]),
        ("space.groups.0.components.0", "'attention'", "got 'atention'"),
        line="atention",
    ),
    "groups that leave tensors out": Case(
        space(groups=[{"name": "attn", "names": ["self_attn"]}]),
        ("space.groups: in no group", "embed_tokens", "more", "{name: rest}"),
    ),
    "a group of no tensor": Case(
        space(groups=[{"name": "a", "names": ["self_atn"]}, {"name": "rest"}]),
        ("space.groups: 'a'", "'self_atn'", "did you mean 'self_attn'?"),
    ),
    "components of listed groups": Case(
        space(groups=[{"name": "rest"}], components=True),
        ("space: ", "components", "under groups"),
        line="space:",
    ),
}
