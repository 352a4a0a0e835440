"""What a mergekit configuration may not say, and the message about each."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evomerge.errors import InputError
from evomerge.models.chain import open_mergekit
from mergekit_configurations import CONFIGURATIONS


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(InputError) as info:
        open_mergekit(path)
    message = str(info.value)
    assert str(path) in message
    return message


def changed(name: str, change) -> str:
    data = yaml.safe_load(CONFIGURATIONS[name])
    change(data)
    return yaml.safe_dump(data, sort_keys=False)


def _set(*steps, value):
    def change(data):
        for step in steps[:-1]:
            data = data[step]
        data[steps[-1]] = value

    return change


MISTAKES = {
    "a misspelt key": (
        "ties",
        lambda data: data.update(paramters=data.pop("parameters")),
        ("'paramters'", "did you mean 'parameters'"),
    ),
    "a misspelt key of a model": (
        "ties",
        lambda data: data["models"][1].update(paramaters=data["models"][1].pop("parameters")),
        ("models.1", "did you mean 'parameters'"),
    ),
    "a misspelt parameter": (
        "ties",
        _set("parameters", "normalise", value=True),
        ("parameters", "did you mean 'normalize'"),
    ),
    "a parameter beside its mapping": (
        "linear",
        lambda data: data["models"][0].update(weight=0.5),
        ("models.0.weight", "it belongs in `parameters`"),
    ),
    "a parameter at the top": (
        "sce",
        lambda data: data.update(select_topk=0.2),
        (":7: select_topk", "it belongs in `parameters`", "--ignore-unknown"),
    ),
    "a field of the file in the parameters": (
        "linear",
        _set("models", 0, "parameters", "dtype", value="bfloat16"),
        ("models.0.parameters.dtype", "it belongs at the top of the file"),
    ),
    "a misspelt filter": (
        "slerp",
        _set("parameters", "t", value=[{"fitler": "mlp", "value": 0.5}]),
        ("parameters.t.0", "did you mean 'filter'"),
    ),
    "a density above 1": (
        "ties",
        _set("models", 0, "parameters", "density", value=1.7),
        ("models.0.parameters.density", "1.7", "0.0 to 1.0"),
    ),
    "a density below 0 in a gradient": (
        "ties",
        _set("models", 0, "parameters", "density", value=[0.5, -0.1]),
        ("models.0.parameters.density.1", "-0.1"),
    ),
    "a density that keeps nothing": (
        "della_linear, nothing dropped",
        _set("models", 0, "parameters", "density", value=0),
        ("density 0.0", "probabilities"),
    ),
    "text that is no number": (
        "slerp",
        _set("parameters", "t", value="half"),
        ("parameters.t", "got 'half', expected a number"),
    ),
    "a flag that is another number": (
        "ties",
        _set("parameters", "normalize", value=0.5),
        ("parameters.normalize", "true or false, 1 or 0"),
    ),
    "a seed that is none": (
        "ties",
        lambda data: data.update(random_seed=-1),
        ("random_seed", "0.0 to"),
    ),
    "a name that is none": (
        "ties",
        lambda data: data.update(name=["a"]),
        ("name", "expected letters"),
    ),
    "a weight that is a flag": (
        "ties",
        _set("models", 0, "parameters", "weight", value=True),
        ("models.0.parameters.weight", "a number"),
    ),
    "no weight": (
        "ties",
        lambda data: data["models"][1]["parameters"].pop("weight"),
        ("models.1.parameters", "'weight'", "ties"),
    ),
    "no weight for an unlisted base": (
        "linear",
        lambda data: data.update(base_model="pool/base"),
        ("base_model", "'weight'"),
    ),
    "no weight where no filter matches": (
        "linear",
        _set("models", 0, "parameters", "weight", value=[{"filter": "mlp", "value": 1}]),
        ("models.0", "'weight'", "embed_tokens"),
    ),
    "weights that sum to zero": (
        "linear",
        _set("models", 1, "parameters", "weight", value=-0.3),
        ("sum to zero",),
    ),
    "no t": ("slerp", lambda data: data.pop("parameters"), ("'t'", "slerp")),
    "a shared value for one model": (
        "ties",
        _set("models", 0, "parameters", "lambda", value=0.5),
        ("models.0.parameters.lambda", "whole merge"),
    ),
    "no base": ("ties", lambda data: data.pop("base_model"), ("ties", "`base_model`")),
    "a base that is not among a slice's sources": (
        "task_arithmetic, other layers",
        lambda data: data["slices"][0]["sources"].pop(0),
        ("slices.0", "'pool/base'"),
    ),
    "three models for slerp": (
        "slerp",
        lambda data: data["models"].append({"model": "pool/expert2"}),
        ("models", "exactly 2", "got 3"),
    ),
    "no expert": (
        "model_stock",
        lambda data: data.update(models=[{"model": "pool/base"}]),
        ("2 or more", "got 0"),
    ),
    "a model twice": (
        "linear",
        lambda data: data["models"].append(data["models"][0]),
        ("'pool/expert0'", "twice"),
    ),
    "a method that is none": (
        "ties",
        lambda data: data.update(merge_method="tise"),
        ("merge_method", "did you mean 'ties'"),
    ),
    "a method that is not supported": (
        "ties",
        lambda data: data.update(merge_method="arcee_fusion"),
        ("merge_method", "'arcee_fusion'", "not supported"),
    ),
    "modules beside models": (
        "ties",
        lambda data: data.update(modules={"default": {}}),
        ("either `models` or `modules`",),
    ),
    "another module": (
        "linear, in a module",
        lambda data: data["modules"].update(vision_tower={}),
        ("modules", "'vision_tower'", "valid: default"),
    ),
    "no module": (
        "linear, in a module",
        lambda data: data.update(modules={}),
        ("modules", "expected default"),
    ),
    "an empty module": (
        "linear, in a module",
        lambda data: data["modules"]["default"].pop("models"),
        ("modules.default: ", "neither"),
    ),
    "a misspelt key of a module": (
        "linear, in a module",
        lambda data: data["modules"]["default"].update(paramters={}),
        ("modules.default.paramters: ", "did you mean 'parameters'"),
    ),
    "a mistake in a module": (
        "ties, slices in a module",
        lambda data: data["modules"]["default"].update(parameters={"density": 1.7}),
        ("modules.default.parameters.density", "1.7"),
    ),
    "models and slices": (
        "ties",
        lambda data: data.update(slices=[{}]),
        ("either `models` or `slices`",),
    ),
    "neither models nor slices": (
        "ties",
        lambda data: data.pop("models"),
        ("either `models` or `slices`", "neither"),
    ),
    "rows of a model that is not merged": (
        "ties",
        lambda data: data.update(
            tokenizer={"source": "base", "tokens": {"a": {"source": "pool/expert9"}}}
        ),
        ("tokenizer.tokens.a", "'pool/expert9'", "pool/expert0"),
    ),
    "rows of no kind": (
        "ties",
        lambda data: data.update(
            tokenizer={"source": "base", "tokens": {"a": {"source": {"kind": "mean"}}}}
        ),
        ("tokenizer.tokens.a.source", "{kind: zero}"),
    ),
    "no multiple": (
        "ties",
        lambda data: data.update(tokenizer={"source": "base", "pad_to_multiple_of": 0}),
        ("tokenizer.pad_to_multiple_of", "got 0", "1 or more"),
    ),
    "tokens": (
        "ties",
        lambda data: data.update(tokenizer={"source": "base", "tokens": {"a": {}}}),
        ("tokenizer.tokens.a", "`source` is missing"),
    ),
    "a misspelt chat template": (
        "ties",
        lambda data: data.update(chat_template="atuo"),
        ("chat_template", "'atuo'", "valid: auto, alpaca, chatml"),
    ),
    "a chat template that is a number": (
        "ties",
        lambda data: data.update(chat_template=1),
        ("chat_template", "got 1", "valid: auto"),
    ),
    "a type": (
        "ties",
        lambda data: data.update(dtype="bfloat"),
        ("dtype", "did you mean 'bfloat16'"),
    ),
    "an adapter of the model with an adapter": (
        "linear",
        _set("models", 0, "model", value="pool/base+pool/lora+pool/lora"),
        ("models.0.model", "MODEL+LORA"),
    ),
    "an adapter that stands alone": (
        "linear",
        _set("models", 1, "model", value="pool/lora"),
        ("'pool/lora' is an adapter", "'pool/expert0+pool/lora'"),
    ),
    "an adapter that is a whole model": (
        "linear",
        _set("models", 1, "model", value="pool/expert0+pool/expert1"),
        ("'pool/expert1' is a whole model",),
    ),
    "two revisions": (
        "linear",
        _set("models", 0, "model", value="a/b@c@d"),
        ("models.0.model", "@REVISION"),
    ),
    "a misspelt key of a model's name": (
        "linear",
        _set("models", 0, "model", value={"model": "pool/expert0", "lroa": "pool/lora"}),
        ("models.0.model", "did you mean 'lora'"),
    ),
    "a misspelt key of a path": (
        "linear",
        _set("models", 0, "model", value={"model": {"path": "a/b", "revison": "c"}}),
        ("models.0.model.model", "did you mean 'revision'"),
    ),
    "an architecture of one's own": (
        "linear",
        _set("models", 0, "model", value={"model": "a", "override_architecture": "b"}),
        ("models.0.model.override_architecture: not supported",),
    ),
    "two revisions of one model": (
        "linear",
        lambda data: data["models"][0].update(model="a/b@c", revision="d"),
        ("models.0.revision", "write `model: ID@REVISION`"),
    ),
    "layers that are not there": (
        "passthrough, a stack",
        _set("slices", 1, "sources", 0, "layer_range", value=[2, 5]),
        ("slices.1.sources.0.layer_range", "0 to 3"),
    ),
    "no layers": (
        "passthrough, a stack",
        _set("slices", 1, "sources", 0, "layer_range", value=[2, 2]),
        ("slices.1.sources.0.layer_range", "FIRST"),
    ),
    "sources of more layers": (
        "slerp, by layers and components",
        _set("slices", 0, "sources", 0, "layer_range", value=[1, 4]),
        ("slices.0", "3 layers of 'pool/expert0', 4 layers of 'pool/expert1'"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(here, tmp_path, name):
    configuration, change, says = MISTAKES[name]
    message = refused(tmp_path, changed(configuration, change))
    for words in says:
        assert words in message


def test_a_missing_model(here, tmp_path):
    text = changed("linear", _set("models", 0, "model", value="./pool/expert9"))
    with pytest.raises(InputError, match="expert9"):
        open_mergekit(write(tmp_path, text))


def test_two_documents_of_one_name(here, tmp_path):
    named = "name: one\n" + CONFIGURATIONS["linear"].lstrip()
    assert "two documents have the name 'one'" in refused(tmp_path, f"{named}---\n{named}")
    text = f"{CONFIGURATIONS['linear']}---\n{named}---\n{CONFIGURATIONS['slerp']}"
    assert "2 documents have no `name`" in refused(tmp_path, text)
    circle = "name: A\nmerge_method: passthrough\nmodels: [{model: B}]\n"
    other = circle.replace("A", "C").replace("B", "A").replace("C", "B")
    message = refused(tmp_path, f"{circle}---\n{other}")
    assert "documents name each other: " in message


@pytest.mark.parametrize("text", ["", "---\n", "# a comment\n", "[a, b]", "a"])
def test_a_file_that_says_nothing(tmp_path, text):
    assert "expected a mapping of name, merge_method" in refused(tmp_path, text)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(paramters={}),
        lambda data: data["models"][0].update(weight=0.5),
        _set("models", 0, "parameters", "lambda", value=0.5),
        _set("parameters", "normalise", value=True),
    ],
)
def test_what_mergekit_passes_over_can_be_passed_over(here, tmp_path, caplog, change):
    path = write(tmp_path, changed("ties", change))
    with pytest.raises(InputError, match="--ignore-unknown"):
        open_mergekit(path)
    _, recipe = open_mergekit(path, ignores_unknown=True)
    assert "it is passed over, as mergekit does" in caplog.text
    assert recipe == open_mergekit(write(tmp_path, CONFIGURATIONS["ties"]))[1]
