"""Padded tokens are no data: what stands there changes nothing of what is computed from the samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import bench_of
from tests.jobimage.huggingface import SIZES, TEXT, TEXT_MODELS, made
from tests.jobimage.padded import Encoder, Reader, Wrapped, layers_of, padded_samples
from tests.jobimage.texts import TEXT as WORDS
from tests.jobimage.texts import sentences, tiny_bert
from torch import nn

from plimsoll_api.spec import Distill, Factorize, Prune
from plimsoll_job.load.data import Samples
from plimsoll_job.techniques import distill, factorize, prune
from plimsoll_job.techniques.factorize.decompose import decompose
from plimsoll_job.techniques.factorize.layers import find_targets
from plimsoll_job.techniques.factorize.split import set_weights, split
from plimsoll_job.techniques.factorize.whitening import measure_moments, whiten
from plimsoll_job.techniques.layout import Layout, Over
from plimsoll_job.techniques.observe import Batches, counted_answers
from plimsoll_job.techniques.padding import Padding, find_padding
from plimsoll_job.techniques.prune.sensitivity import scan
from plimsoll_job.techniques.quantize.fidelity import counted
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.padding import find_padding_in_graph
from plimsoll_job.techniques.quantize.ranges import activations, observe_ranges, read_ranges
from plimsoll_job.techniques.shape import Applied, Candidate, Split

BATCH_FIRST = Layout(((Over.SAMPLES,), (Over.TOKENS,), ()))
TOKENS_FIRST = Layout(((Over.TOKENS,), (Over.SAMPLES,), ()))
SIDE_BY_SIDE = Layout(((Over.SAMPLES, Over.TOKENS), ()))


def found(module: nn.Module, samples: Samples | None = None) -> Padding:
    return find_padding(module, layers_of(module), Batches.of(samples or padded_samples()))


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_padding_is_found_in_every_layer_of_transformers(name: str, head: str) -> None:
    module = Wrapped(made(name, head, **TEXT_MODELS[name]))
    padding = found(module)
    assert padding.read == ()
    assert set(padding.layouts.values()) == {BATCH_FIRST}
    # What a head reads of a whole text is no token.
    of_texts = {"inner.bert.pooler.dense", "inner.classifier", "inner.pre_classifier", "inner.classifier.dense",
                "inner.classifier.out_proj"}  # fmt: skip
    assert set(layers_of(module)) - set(padding.layouts) <= of_texts


@pytest.mark.parametrize(
    ("how", "layout"),
    [
        ({}, BATCH_FIRST),
        ({"batch_first": False}, TOKENS_FIRST),
        ({"with_class": True}, replace(BATCH_FIRST, before=1)),
        ({"with_class": True, "batch_first": False}, replace(TOKENS_FIRST, before=1)),
        ({"pool": "masked mean"}, BATCH_FIRST),
        ({"pool": "tokens"}, BATCH_FIRST),
    ],
)
def test_padding_is_found_however_tokens_lie(how: dict[str, Any], layout: Layout) -> None:
    padding = found(Encoder(**how))
    assert padding.read == ()
    assert padding.layouts["layers.0.self_attn.query"] == padding.layouts["layers.1.linear2"] == layout
    assert padding.layouts["flat"] == SIDE_BY_SIDE


def test_what_the_answers_depend_on_is_data() -> None:
    # The mean of all tokens reads the padded ones too; only as keys and values they are masked.
    padding = found(Encoder(pool="mean"))
    assert {"layers.0.self_attn.query", "layers.1.linear2", "flat"} <= set(padding.read)
    assert {"layers.0.self_attn.key", "layers.0.self_attn.value"} <= set(padding.layouts)
    assert found(Reader(packed=False)).read == ("before",)
    assert found(Reader(packed=True)).layouts == {"before": BATCH_FIRST}
    (note,) = padding.notes()
    assert note.startswith("Padded tokens count as data in what ")
    assert padding.to_details()["padding"]["countsIn"] == list(padding.read)


def test_without_padding_there_is_nothing_to_find() -> None:
    whole = padded_samples(shortest=12)
    assert whole.mask is None
    assert found(Encoder(), whole) == Padding()
    assert Padding().to_details() == {}


def other_padding(samples: Samples, seed: int = 5) -> Samples:
    """Return the samples with other words where they are padded."""
    chance = np.random.default_rng(seed)
    ids, mask = samples.inputs["input_ids"], samples.inputs["attention_mask"]
    others = chance.integers(3, 50, ids.shape)
    return replace(samples, inputs={"input_ids": np.where(mask == 1, ids, others), "attention_mask": mask})


STEPS: dict[str, tuple[Any, Any]] = {
    **{
        statistic: (
            prune,
            Prune.model_validate({"criterion": "Activation", "statistic": statistic, "amount": "20%"}),
        )
        for statistic in ("MeanAbsolute", "Wanda")
    },
    "Wanda of weights": (
        prune,
        Prune.model_validate(
            {"criterion": "Activation", "statistic": "Wanda", "granularity": "Unstructured", "amount": "30%"}
        ),
    ),
    "Taylor": (prune, Prune.model_validate({"criterion": "Taylor", "amount": "20%"})),
    "Redundancy": (prune, Prune.model_validate({"criterion": "Redundancy", "amount": "20%"})),
    "Sensitivity": (
        prune,
        Prune.model_validate({"criterion": "Activation", "allocation": "Sensitivity", "amount": "20%"}),
    ),
    "ActivationSvd": (factorize, Factorize.model_validate({"method": "ActivationSvd", "amount": "20%"})),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_stands_in_the_padding_changes_no_step(name: str) -> None:
    technique, settings = STEPS[name]
    samples = sentences()
    assert samples.mask is not None

    def applied(calibration: Samples) -> Applied:
        module = tiny_bert()
        result: Applied = technique.apply(
            settings, Candidate(module), bench_of(module, calibration=calibration, signature=WORDS)
        )
        return result

    one, other = applied(samples), applied(other_padding(samples))
    assert one.candidate.changes == other.candidate.changes
    weights, others = (step.candidate.module.state_dict() for step in (one, other))
    assert all(torch.allclose(weights[key], others[key], rtol=1e-4, atol=1e-6) for key in weights)
    assert one.details["padding"]["share"] == pytest.approx(1 - samples.mask.mean(), abs=1e-5)
    assert one.details["padding"]["countsIn"] == []


def test_errors_of_a_scan_are_those_of_tokens_that_count() -> None:
    samples = padded_samples()
    module = Wrapped(made("Bert", "ForTokenClassification", **SIZES))

    class Silence:
        """Has the padded positions answered otherwise, and nothing else."""

        def __enter__(self) -> None:
            self.hook = module.register_forward_hook(
                lambda _, given, answers: answers + 9.0 * (1 - given[1].float()[..., None])
            )

        def __exit__(self, *_: object) -> None:
            self.hook.remove()

    errors = scan(module, ["inner"], lambda *_: Silence(), samples).errors
    assert errors["inner"] == (0.0,) * 5


def test_whitened_factors_answer_better_on_tokens_that_count() -> None:
    """Five sixths are padding; by a model and data of this kind it was found."""
    settings = SIZES | {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    chance = np.random.default_rng(1)
    mask = (np.arange(36) < chance.integers(3, 10, 256)[:, None]).astype(np.int64)
    words = chance.integers(3, 50, mask.shape) * mask
    samples = Samples({"input_ids": words, "attention_mask": mask}, None, "")
    assert samples.mask is not None and 0.82 < 1 - samples.mask.mean() < 0.85  # noqa: PT018
    module = Wrapped(made("Bert", "Model", **settings))
    targets = [one for one in find_targets(module, TEXT)[0] if "pooler" not in one.name]
    batch = tuple(torch.from_numpy(one) for one in samples.inputs.values())

    def error(padding: Padding | None) -> float:
        moments = measure_moments(module, targets, Batches.of(samples), padding)
        ranks = {one.name: (min(one.layer.weight.shape) // 4,) for one in targets}
        small = split(module, [Split(name, rank) for name, rank in ranks.items()])
        for one in targets:
            found = decompose(one.layer.weight, whiten(moments[one.name]))
            layers: Any = small.get_submodule(one.name)
            set_weights(layers, found.factors(ranks[one.name]), one.layer.bias)
        with torch.no_grad():
            wanted, given = (counted_answers(model(*batch), samples.mask) for model in (module, small))
        return float((given - wanted).square().mean() / (wanted - wanted.mean(dim=0)).square().mean())

    as_data, without = error(Padding()), error(None)
    assert without < 0.8 * as_data


def test_ranges_of_activations_are_those_of_tokens_that_count() -> None:
    samples = sentences()
    model = float_model_of(Candidate(tiny_bert()), WORDS)
    names = activations(model.lean().proto, model.layers)
    padding = find_padding_in_graph(model, names, samples)
    assert padding.read == ()
    # The first token alone, and the answer, have none.
    assert set(names) - set(padding.layouts) == {"/Gather_output_0", "logits"}
    one, other = (read_ranges(observe_ranges(model, given)) for given in (samples, other_padding(samples)))
    assert one == other
    whole = replace(samples, mask=np.ones_like(samples.mask))
    as_data = read_ranges(observe_ranges(model, whole))
    assert all(as_data[name][0] <= low and high <= as_data[name][1] for name, (low, high) in one.items())
    assert one != as_data


def test_ranges_hold_what_the_answers_depend_on() -> None:
    module, samples = Encoder(pool="mean"), padded_samples()
    # torch's attention is exported for one length.
    model = float_model_of(Candidate(module), tuple(replace(one, any_length=False) for one in TEXT))
    names = activations(model.lean().proto, model.layers)
    padding = find_padding_in_graph(model, names, samples)
    assert padding.read
    as_data = read_ranges(observe_ranges(model, replace(samples, mask=np.ones_like(samples.mask))))
    found = read_ranges(observe_ranges(model, samples))
    assert all(found[name] == as_data[name] for name in padding.read)


def test_quantized_answers_are_compared_on_tokens_that_count() -> None:
    answered = np.arange(24.0).reshape(2, 3, 4)
    mask = np.array([[True, True, False], [True, False, False]])
    assert np.array_equal(counted(answered, mask), answered[mask])
    assert counted(answered[:, 0], mask).shape == (2, 4)
    assert counted(answered, None) is answered


@pytest.mark.parametrize("kind", ["features", "attention", "relation"])
def test_what_stands_in_the_padding_teaches_nothing(kind: str) -> None:
    samples = sentences()
    layers = [{"teacher": "layers.0.norm"}, {"teacher": "layers.1.wide"}]
    order = Distill.model_validate({"epochs": 1, "learningRate": "0.001", "losses": [{kind: {"layers": layers}}]})

    def taught(train: Samples) -> Applied:
        student = tiny_bert()
        with torch.no_grad():
            student.get_parameter("layers.0.value.weight").mul_(-1)
        return distill.apply(order, Candidate(student), bench_of(tiny_bert(), train=train, signature=WORDS))

    one, other = taught(samples), taught(other_padding(samples))
    weights, others = (step.candidate.module.state_dict() for step in (one, other))
    # Words that stand in no sample but in the padding move by their decay alone.
    assert all(torch.allclose(weights[key], others[key], atol=1e-5) for key in weights)
    assert one.details["loss"] == pytest.approx(other.details["loss"], rel=1e-4)
    assert one.details["padding"] == {"share": pytest.approx(0.36, abs=0.1), "leftOutIn": 2, "countsIn": []}
