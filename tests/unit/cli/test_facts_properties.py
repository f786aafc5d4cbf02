"""Properties of the arithmetic that hold for every model, and hostile files, which end in one sentence."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ascend_cli.errors import UsageError
from ascend_cli.plan.planner import PlanRequest, Workload, checkpoint_format, make_plan
from ascend_cli.registry.cards import Model, find_model
from ascend_facts import chips
from ascend_facts.checkpoint import tensors
from ascend_facts.config_fields import SPELLINGS
from ascend_facts.memory_plan import plan_memory, request_on, smallest_that_fits, weight_bytes
from ascend_facts.model_shape import ModelShape, UnreadableConfig, read_model_shape
from ascend_facts.quantized_format import BYTES_OF_WEIGHT
from ascend_facts.roofline import Placement
from ascend_facts.safetensors_file import BrokenCheckpoint

ROWS = {
    row["name"]: row["config"]
    for row in json.loads((Path(__file__).parent / "data/published_models.json").read_text(encoding="utf-8"))
}
SHAPES = {name: read_model_shape(config) for name, config in ROWS.items()}
GENERATING = [name for name, shape in SHAPES.items() if shape.caches]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=6)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(
    {name for config in ROWS.values() for name in config}
    | {name for config in ROWS.values() for name in config.get("text_config", {})}
    | set(SPELLINGS)
    | {"text_config", "vision_config", "quantization_config", "thinker_config", "linear_attn_config", "llm_config"}
)
names = st.sampled_from(sorted(SHAPES))
generating = st.sampled_from(GENERATING)
every_chip = st.sampled_from(chips.chips())
ranks = st.sampled_from([1, 2, 4, 8, 16])


def read_or_refused(config: Any) -> ModelShape | None:
    """The shape, or None after a refusal of one line that says what is wrong; anything else is a defect."""
    try:
        return read_model_shape(config)
    except UnreadableConfig as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < 300
        return None


@given(base=names, field=st.sampled_from(FIELDS), value=ANYTHING)
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_one_hostile_field_never_ends_in_a_traceback(base: str, field: str, value: Any) -> None:
    config = ROWS[base]
    inner = config.get("text_config")
    variants = [{**config, field: value}]
    if inner:
        variants.append({**config, "text_config": {**inner, field: value}})
    for variant in variants:
        shape = read_or_refused(variant)
        if shape is not None:
            assert shape.parameters > 0
            assert shape.cache_values_per_token(1) >= 0


@given(config=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=12))
def test_a_hostile_file_never_ends_in_a_traceback(config: dict[str, Any]) -> None:
    read_or_refused(config)


@pytest.mark.parametrize("config", [None, [], "text", 3, {}, {"text_config": []}, {"text_config": {"text_config": 1}}])
def test_what_is_no_configuration_is_refused(config: Any) -> None:
    assert read_or_refused(config) is None


@given(name=names, request=st.data())
@settings(max_examples=60)
def test_every_spelling_gives_the_same_shape(name: str, request: st.DataObject) -> None:
    """A size under another of its names is the same size."""
    config = ROWS[name]
    renamed = {}
    for field, value in config.items():
        others = SPELLINGS.get(field, ())
        free = [other for other in others if other not in config]
        renamed[request.draw(st.sampled_from([field, *free])) if free else field] = value
    if "text_config" in config:
        renamed["text_config"] = config["text_config"]
    assert read_model_shape(renamed).parameters == SHAPES[name].parameters


@given(name=names, chip=every_chip, size=ranks)
@settings(max_examples=150)
def test_weights_over_more_ranks_are_less_and_never_vanish(name: str, chip: chips.ChipSpec, size: int) -> None:
    shape = SHAPES[name]
    for kind in BYTES_OF_WEIGHT:
        one, many = (weight_bytes(shape, request_on(chip, count, kind)) for count in (1, size))
        assert many <= one <= many * size + size
        staged = weight_bytes(shape, request_on(chip, size, kind, pipeline_parallel_size=2))
        assert 0 < staged <= many
        spread = weight_bytes(shape, request_on(chip, size, kind, expert_ranks=4 * size))
        assert (spread < many) if shape.has_experts else (spread == many)


@given(name=generating, chip=every_chip, size=ranks, tokens=st.integers(1, 100_000), more=st.integers(0, 5000))
@settings(max_examples=200)
def test_a_longer_request_takes_no_less(name: str, chip: chips.ChipSpec, size: int, tokens: int, more: int) -> None:
    plan = plan_memory(SHAPES[name], request_on(chip, size))
    shorter, longer = plan.bytes_of_request(tokens), plan.bytes_of_request(tokens + more)
    assert 0 < shorter <= longer
    assert plan.concurrency(tokens) >= plan.concurrency(tokens + more)


@given(name=generating, chip=every_chip, size=ranks)
@settings(max_examples=200)
def test_the_cache_holds_what_it_says_and_not_a_block_more(name: str, chip: chips.ChipSpec, size: int) -> None:
    plan = plan_memory(SHAPES[name], request_on(chip, size))
    block = plan.request.block_size
    tokens = plan.cache_tokens
    assert tokens % block == 0
    if tokens:
        assert plan.bytes_of_request(tokens) <= plan.usable_cache_bytes
        assert plan.fits
    if plan.cache_bytes_per_token:
        assert plan.bytes_of_request(tokens + block) > plan.usable_cache_bytes
    assert plan.max_context == min(tokens, SHAPES[name].max_context)


@given(name=generating, chip=every_chip, fraction=st.floats(0.05, 0.95), more=st.floats(0, 0.05))
@settings(max_examples=100)
def test_more_memory_is_more_cache(name: str, chip: chips.ChipSpec, fraction: float, more: float) -> None:
    less, much = (plan_memory(SHAPES[name], request_on(chip, memory_fraction=f)) for f in (fraction, fraction + more))
    assert less.cache_bytes <= much.cache_bytes
    assert less.cache_tokens <= much.cache_tokens
    limited = plan_memory(SHAPES[name], request_on(chip, memory_fraction=fraction, cache_limit_bytes=1 << 28))
    assert limited.usable_cache_bytes <= min(max(less.cache_bytes, limited.cache_bytes), 1 << 28)


@given(name=generating, chip=every_chip)
@settings(max_examples=100)
def test_the_smallest_size_fits_and_no_smaller_one_does(name: str, chip: chips.ChipSpec) -> None:
    shape, request = SHAPES[name], request_on(chip)
    found = smallest_that_fits(shape, request)
    tried = [size for size in range(1, 65) if shape.splits_into(size)]
    fitting = [size for size in tried if plan_memory(shape, replace(request, tensor_parallel_size=size)).fits]
    assert (found.request.tensor_parallel_size if found else None) == (fitting[0] if fitting else None)


@given(name=generating, chip=every_chip, size=ranks, context=st.integers(1, 32768), sequences=st.integers(1, 64))
@settings(max_examples=150)
def test_no_model_of_time_is_below_its_floor(
    name: str, chip: chips.ChipSpec, size: int, context: int, sequences: int
) -> None:
    placement = Placement(SHAPES[name], chip, size)
    floor, modeled = placement.decode_floor_ms(sequences, context), placement.modeled_decode_ms(sequences, context)
    assert 0 < floor < modeled <= placement.modeled_eager_decode_ms(sequences, context)
    assert placement.prefill_floor_ms(context) < placement.modeled_prefill_ms(context)
    assert floor <= placement.decode_floor_ms(sequences, context + 1)
    assert floor <= placement.decode_floor_ms(sequences + 1, context)


@given(name=generating, chip=every_chip, count=st.integers(1, 33), asked=st.none() | ranks)
@settings(max_examples=120, deadline=None)
def test_a_plan_never_offers_what_does_not_fit(name: str, chip: chips.ChipSpec, count: int, asked: int | None) -> None:
    model = Model(name.split("/")[1], ROWS[name], "card", hub_id=name)
    if asked and not model.shape.splits_into(asked):
        return
    question = PlanRequest(model, chip, max(count, asked or 1), Workload(), checkpoint_format(model.shape, chip), asked)
    plan = make_plan(question)
    fitting = [choice for choice in plan.choices if choice.fits]
    assert (plan.smallest is None) == (not fitting)
    if plan.serve:
        choice = plan.best_choice
        assert choice is not None
        assert plan.standing.outcome != "refused"
        words = plan.serve.split()
        assert int(words[words.index("--max-model-len") + 1]) <= choice.max_context
        assert ("--tensor-parallel-size" in words) == (choice.tensor_parallel_size > 1)
    for line in plan.advice:
        assert "\n" not in line and "None" not in line and "nan" not in line
    for group in plan.placement:
        assert len(group) == (plan.best or 0) and max(group) < question.chips
    assert not plan.best or asked or plan.best in {choice.tensor_parallel_size for choice in fitting}


@given(content=st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: struct.pack("<Q", len(tail)) + tail))
def test_hostile_safetensors_are_named(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "model.safetensors").write_bytes(content)
    try:
        list(tensors(folder))
    except BrokenCheckpoint as error:
        assert "model.safetensors" in str(error) and "\n" not in str(error)


@given(entry=ANYTHING)
def test_hostile_headers_are_named(entry: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("weights")
    text = json.dumps({"model.layers.0.mlp.up_proj.weight": entry}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(BrokenCheckpoint, match="download it again"):
        list(tensors(folder))


@given(content=st.binary(max_size=40) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_a_hostile_config_json_is_one_sentence(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_bytes(content)
    try:
        _ = find_model(str(folder)).shape
    except UsageError as error:
        assert "\n" not in str(error)
