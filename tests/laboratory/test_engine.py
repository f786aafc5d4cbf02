"""What the engine's process calls a refusal: what was raised to be read, and no crash."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from conformance.engine import is_refusal, one_line

RAISES = "def act(x):\n    raise {error}\n"
CRASHES = "def act(x):\n    a, b = x\n"


@pytest.fixture
def package(tmp_path: Path):
    """A maker of functions that live in a file of a package of that name."""

    def make(name: str, source: str):
        file = tmp_path / name / "module.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
        names: dict = {}
        exec(compile(source, str(file), "exec"), names)
        return names["act"]

    return make


def error_of(act, value: object = (1,)) -> BaseException:
    with pytest.raises(Exception) as caught:
        act(value)
    return caught.value


def test_what_the_plugin_raises_to_be_read_is_a_refusal(package) -> None:
    for error in ("ValueError('no')", "NotImplementedError('no')"):
        raised = error_of(package("ascend_plugin", RAISES.format(error=error)))
        assert is_refusal(raised, "ascend_plugin")
        assert one_line(raised) == "no"


def test_a_crash_is_no_refusal_wherever_it_happens(package) -> None:
    for name in ("ascend_plugin", "vllm"):
        crash = error_of(package(name, CRASHES))
        assert "not enough values to unpack" in str(crash)
        assert not is_refusal(crash, "vllm", "ascend_plugin")
    assert not is_refusal(
        error_of(package("ascend_plugin", RAISES.format(error="RuntimeError('no')"))), "ascend_plugin"
    )


def test_what_lies_below_the_named_packages_refuses_nothing(package) -> None:
    assert not is_refusal(error_of(package("torch", RAISES.format(error="ValueError('no')"))), "ascend_plugin")


def test_a_validator_is_looked_into(package) -> None:
    def validate(act) -> BaseException:
        class Model(pydantic.BaseModel):
            field: tuple
            check = pydantic.field_validator("field")(lambda cls, value: act(value))

        return error_of(lambda value: Model(field=value))

    refused = validate(package("vllm", RAISES.format(error="ValueError('no')")))
    assert is_refusal(refused, "vllm")
    assert one_line(refused) == "field Value error, no"
    assert not is_refusal(validate(package("vllm", CRASHES)), "vllm")
