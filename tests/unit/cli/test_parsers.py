"""Which parsers released models get: by what their chat template writes, and by name where no template is at hand.

A template here is the part that tells: how calls are asked for, and how the prompt for an answer ends. Forms as in the
released tokenizer_config.json of each model.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascend_cli.registry.cards import Model, find_model
from ascend_cli.registry.parsers import _table, by_name, by_template, parser_flags
from ascend_cli.registry.templates import chat_template

TOOLS = "{% if tools %}"
HERMES = TOOLS + '<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>'
XML = (
    TOOLS
    + "<tool_call>\\n<function=a_name>\\n<parameter=a_parameter>\\nvalue\\n</parameter>\\n</function>\\n</tool_call>"
)
CUT_HISTORY = "{% set content = content.split('</think>')[-1] %}"  # old thoughts leave the history
PLAIN = "{{ '<|im_start|>assistant\\n' }}"
OPENS = "{{- '<|im_start|>assistant\\n<think>\\n' }}"
SWITCH = (
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
)
DEEPSEEK_CALL = "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'"
LLAMA3 = "<|start_header_id|>{% if tools %}" + '{"name": function name, "parameters": a dictionary}'

# release: (model_type, template, tool parser, reasoning parser)
RELEASED: dict[str, tuple[str, str, str, str]] = {
    "Qwen3-8B": ("qwen3", HERMES + CUT_HISTORY + PLAIN + SWITCH, "hermes", "qwen3"),
    "Qwen3-30B-A3B": ("qwen3_moe", HERMES + CUT_HISTORY + PLAIN + SWITCH, "hermes", "qwen3"),
    "Qwen3-4B-Instruct-2507": ("qwen3", HERMES + PLAIN, "hermes", ""),
    "Qwen3-30B-A3B-Instruct-2507": ("qwen3_moe", HERMES + CUT_HISTORY + PLAIN, "hermes", ""),
    "Qwen3-235B-A22B-Instruct-2507": ("qwen3_moe", HERMES + PLAIN, "hermes", ""),
    "Qwen3-4B-Thinking-2507": ("qwen3", HERMES + CUT_HISTORY + OPENS, "hermes", "qwen3"),
    "Qwen3-235B-A22B-Thinking-2507": ("qwen3_moe", HERMES + CUT_HISTORY + OPENS, "hermes", "qwen3"),
    "Qwen3-Next-80B-A3B-Instruct": ("qwen3_next", HERMES + PLAIN, "hermes", ""),
    "Qwen3-Next-80B-A3B-Thinking": ("qwen3_next", HERMES + OPENS, "hermes", "qwen3"),
    "Qwen3-Coder-30B-A3B-Instruct": ("qwen3_moe", XML + PLAIN, "qwen3_coder", ""),
    "Qwen3-Coder-480B-A35B-Instruct": ("qwen3_moe", XML + PLAIN, "qwen3_coder", ""),
    "Qwen3-VL-8B-Instruct": ("qwen3_vl_text", HERMES + PLAIN, "hermes", ""),
    "Qwen3-VL-32B-Thinking": ("qwen3_vl_text", HERMES + CUT_HISTORY + OPENS, "hermes", "qwen3"),
    "Qwen3.5-27B": ("qwen3_5_text", XML + CUT_HISTORY + OPENS + SWITCH, "qwen3_coder", "qwen3"),
    "Qwen2.5-7B-Instruct": ("qwen2", HERMES + PLAIN, "hermes", ""),
    "QwQ-32B": ("qwen2", HERMES + CUT_HISTORY + OPENS, "hermes", "qwen3"),
    "Qwen3-Embedding-0.6B": ("qwen3", PLAIN, "", ""),
    "DeepSeek-R1": ("deepseek_v3", DEEPSEEK_CALL + "```json" + "{{'<｜Assistant｜><think>\\n'}}", "", "deepseek_r1"),
    "DeepSeek-R1-Distill-Qwen-32B": (
        "qwen2",
        DEEPSEEK_CALL + "```json" + CUT_HISTORY + "{{'<｜Assistant｜><think>\\n'}}",
        "",
        "deepseek_r1",
    ),
    "DeepSeek-V3-0324": (
        "deepseek_v3",
        TOOLS + DEEPSEEK_CALL + "```json" + CUT_HISTORY + "{{'<｜Assistant｜>'}}",
        "deepseek_v3",
        "",
    ),
    "DeepSeek-V3.1": (
        "deepseek_v3",
        "{% if not thinking is defined %}" + DEEPSEEK_CALL + "{{'<｜Assistant｜>'}}{% if not thinking %}</think>",
        "",
        "deepseek_v3",
    ),
    "DeepSeek-V3.1-Terminus with tools": (
        "deepseek_v3",
        TOOLS + "{% if not thinking is defined %}" + DEEPSEEK_CALL + "{{'<｜Assistant｜>'}}",
        "deepseek_v31",
        "deepseek_v3",
    ),
    "Kimi-K2-Instruct": ("kimi_k2", TOOLS + "<|tool_calls_section_begin|><|im_assistant|>", "kimi_k2", ""),
    "Kimi-K2-Thinking": ("kimi_k2", TOOLS + "<|tool_calls_section_begin|><think></think>", "kimi_k2", "kimi_k2"),
    "GLM-4.5-Air": (
        "glm4_moe",
        TOOLS + "<tool_call>{function-name}\\n<arg_key>{arg-key-1}</arg_key>" + "enable_thinking <think></think>",
        "glm45",
        "glm45",
    ),
    "GLM-4.7": (
        "glm4_moe",
        TOOLS + "<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key>" + "enable_thinking <think>",
        "glm47",
        "glm45",
    ),
    "gpt-oss-20b": ("gpt_oss", TOOLS + "<|start|>assistant<|channel|>analysis<|message|>", "openai", "openai_gptoss"),
    "Seed-OSS-36B-Instruct": ("seed_oss", TOOLS + "<seed:tool_call><seed:think>", "seed_oss", "seed_oss"),
    "MiniMax-M2": ("minimax_m2", TOOLS + "<minimax:tool_call>]~b]ai\n<think>\n", "minimax_m2", "minimax_m2"),
    "Llama-3.1-8B-Instruct": ("llama", LLAMA3, "llama3_json", ""),
    "Llama-3.2-1B-Instruct": ("llama", LLAMA3, "llama3_json", ""),
    "Llama-3-8B-Instruct": ("llama", "<|start_header_id|>assistant<|end_header_id|>", "", ""),
    "Llama-4-Scout-17B-16E-Instruct": ("llama4_text", TOOLS + "[func_name1(a=b)]", "llama4_pythonic", ""),
    "Mistral-Small-24B-Instruct-2501": ("mistral", TOOLS + "[AVAILABLE_TOOLS][TOOL_CALLS]", "mistral", ""),
    "Mistral-7B-Instruct-v0.1": ("mistral", "[INST] {{ m }} [/INST]", "", ""),
    "Magistral-Small-2509": ("mistral", TOOLS + "[TOOL_CALLS][THINK][/THINK]", "mistral", "mistral"),
    "Phi-4-mini-instruct": ("phi3", TOOLS + "<|tool|>{{ tools }}<|/tool|>", "phi4_mini_json", ""),
    "phi-4": ("phi3", "<|im_start|>assistant<|im_sep|>", "", ""),
    "gemma-3-27b-it": ("gemma3_text", "<start_of_turn>model\n", "", ""),
    "granite-3.3-8b-instruct": (
        "granite",
        TOOLS + "<|tool_call|>{% if thinking %}write your thought process",
        "granite",
        "granite",
    ),
    "internlm2_5-7b-chat": ("internlm2", TOOLS + "<|action_start|><|plugin|>", "internlm", ""),
    "SmolLM2-1.7B-Instruct": ("llama", PLAIN, "", ""),
    "SmolLM3-3B": (
        "smollm3",
        "{% if xml_tools or tools %}" + '<tool_call>{"name": "f", "arguments": {}}</tool_call>' + SWITCH,
        "hermes",
        "qwen3",
    ),
    "Hunyuan-A13B-Instruct": (
        "hunyuan_v1_moe",
        TOOLS + '<tool_calls>[{"name": n, "arguments": a}]</tool_calls> enable_thinking <think>',
        "hunyuan_a13b",
        "hunyuan_a13b",
    ),
    "NVIDIA-Nemotron-3-Nano-30B-A3B": (
        "nemotron_h",
        XML + "enable_thinking {{ '<|im_start|>assistant\\n<think>\\n' }}",
        "qwen3_coder",
        "nemotron_v3",
    ),
    "Step-3.7-Flash": ("step3p7", XML + OPENS, "step3p5", "step3p5"),
    "LFM2-1.2B": ("lfm2", TOOLS + "<|tool_call_start|>[f(a=1)]<|tool_call_end|>", "lfm2", ""),
}


@pytest.mark.parametrize("name", list(RELEASED))
def test_the_template_decides(name: str, tmp_path: Path) -> None:
    model_type, template, tool, reasoning = RELEASED[name]
    assert by_template(template, model_type) == (tool, reasoning)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    flags = parser_flags(Model("renamed-by-its-folder", {"model_type": model_type}, "folder", folder=tmp_path))
    wanted = ["--enable-auto-tool-choice", "--tool-call-parser", tool] if tool else []
    assert flags == wanted + (["--reasoning-parser", reasoning] if reasoning else [])


@pytest.mark.parametrize(
    ("name", "model_type", "tool", "reasoning"),
    [
        ("qwen3-8b", "qwen3", "hermes", "qwen3"),
        ("Qwen3-4B-Instruct-2507", "qwen3", "hermes", ""),
        ("Qwen3-VL-8B-Instruct", "qwen3_vl_text", "hermes", ""),
        ("Qwen3-Coder-30B-A3B-Instruct-FP8", "qwen3_moe", "qwen3_coder", ""),
        ("qwen3.5-27b", "qwen3_5_text", "qwen3_coder", "qwen3"),
        ("deepseek-r1-distill-qwen-7b", "qwen2", "hermes", "deepseek_r1"),
        ("DeepSeek-V3-0324", "deepseek_v3", "deepseek_v3", ""),
        ("DeepSeek-V3.1", "deepseek_v3", "deepseek_v31", "deepseek_v3"),
        ("bge-m3", "xlm-roberta", "", ""),
        ("Qwen3-Reranker-0.6B", "qwen3", "", ""),
        ("smollm2", "llama", "hermes", ""),
        ("llama-3.1-8b", "llama", "llama3_json", ""),
        ("something-new", "something_new", "", ""),
    ],
)
def test_without_a_template_the_name_decides(name: str, model_type: str, tool: str, reasoning: str) -> None:
    assert by_name(name, model_type) == (tool, reasoning)
    flags = parser_flags(Model(name, {"model_type": model_type}, "card"))
    assert ("--reasoning-parser" in flags, "--tool-call-parser" in flags) == (bool(reasoning), bool(tool))


def test_cards_have_parsers() -> None:
    assert parser_flags(find_model("qwen3-8b"))[1:] == ["--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"]


def test_every_parser_is_one_that_vllm_registers() -> None:
    """Read from vLLM's source, which is quicker than importing it."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    package, table = Path(spec.origin).parent, _table()
    for kind, module in (("tool", "tool_parsers"), ("reasoning", "reasoning")):
        text = (package / module / "__init__.py").read_text()
        registered = set(re.findall(r'^    "([a-z0-9_-]+)": \(', text, re.MULTILINE))
        used = set(table[kind].values()) | {rule["parser"] for rule in table[f"{kind}_template"]}
        used |= {entry[kind] for entry in table["names"] if entry.get(kind)}
        assert used <= registered, used - registered


def test_the_jinja_file_comes_before_the_tokenizer_s(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old"}))
    assert chat_template(tmp_path) == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert chat_template(tmp_path) == "new"
    assert chat_template(None) is None


def test_named_templates_are_read_together(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": HERMES}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert by_template(chat_template(tmp_path) or "", "qwen2")[0] == "hermes"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(template=JSON, model_type=JSON)
def test_hostile_templates_give_flags_or_none(
    template: Any, model_type: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    flags = parser_flags(Model("x", {"model_type": model_type}, "folder", folder=folder))
    assert all(isinstance(flag, str) for flag in flags)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1, 2]", b'{"chat_template": ' + b"[" * 100_000])
def test_broken_files_are_no_template(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    assert chat_template(tmp_path) is None
