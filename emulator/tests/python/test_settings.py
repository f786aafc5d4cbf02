"""Settings: what is refused, in which words, and that the environment carries them faithfully."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ascend_emulator.settings import Settings, SettingsError, switch


@pytest.mark.parametrize(
    ("choices", "complaint"),
    [
        ({"chip": "h100"}, "Unknown chip 'h100': choose one of 310P3"),
        ({"count": 0}, "count is 0: choose 1 to 64 chips"),
        ({"count": 65}, "count is 65"),
        ({"memory_mib": 1}, "memory is 1 MiB: choose at least 64 MiB"),
        ({"clock": "wall"}, "clock is 'wall': choose functional, skip, timing, both"),
        ({"time_dilation": 0.0}, "time dilation is 0.0: choose 0.1 to 1000"),
        ({"faults": Path("/nowhere.json")}, "faults is '/nowhere.json': no such file"),
    ],
)
def test_a_bad_choice_is_one_sentence(choices: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**choices)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_a_server_has_its_usual_number_of_chips() -> None:
    assert {chip: Settings(chip=chip).chip_count for chip in ("310P3", "910B3", "910_9391")} == {
        "310P3": 4,
        "910B3": 8,
        "910_9391": 16,
    }


def test_the_environment_carries_every_setting(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text("[]")
    settings = Settings(
        "910B4",
        3,
        memory_mib=512,
        clock="timing",
        faults=faults,
        protect_memory=True,
        time_dilation=2.5,
        lenient=True,
        rules="ragged_copy,-int64_add",
    )
    assert Settings.from_environment(settings.to_environment()) == settings
    assert Settings.from_environment({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("ASCEND_EMULATOR_COUNT", "two"), ("ASCEND_EMULATOR_MEMORY_BYTES", "1G"), ("ASCEND_EMULATOR_PROTECT_MEMORY", "?")],
)
def test_a_bad_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is {value!r}".replace("?", r"\?")):
        Settings.from_environment({name: value})


def test_a_switch_is_on_off_or_unset() -> None:
    assert [switch({"S": value}, "S") for value in ("1", "on", "0", "False", "")] == [True, True, False, False, None]
