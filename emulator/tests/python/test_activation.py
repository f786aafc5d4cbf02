"""When chips are emulated, what that costs other programs, and what the user is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ascend_emulator import activation
from ascend_emulator.activation import emulation_is_wanted, real_npu_traces
from ascend_emulator.settings import Settings, SettingsError


def run(source: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ASCEND_")}
    if library_folder := os.environ.get("ASCEND_EMULATOR_LIB_DIR"):
        inherited["ASCEND_EMULATOR_LIB_DIR"] = library_folder
    command = [sys.executable, "-c", source]
    return subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True)


class TestDecision:
    @pytest.fixture(autouse=True)
    def no_real_npu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if real_npu_traces({}):
            pytest.skip("this machine has a real NPU")

    def test_chips_are_emulated_where_there_is_nothing(self) -> None:
        assert emulation_is_wanted({})

    @pytest.mark.parametrize("variable", ["ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"])
    def test_settings_of_real_cann_keep_the_emulator_out(self, variable: str) -> None:
        assert not emulation_is_wanted({variable: "/usr/local/Ascend/ascend-toolkit/latest"})
        assert emulation_is_wanted({variable: "/usr/local/Ascend/ascend-toolkit/latest", "ASCEND_EMULATOR": "1"})

    def test_a_real_library_keeps_the_emulator_out(self, tmp_path: Path) -> None:
        (tmp_path / "libascendcl.so").touch()
        assert not emulation_is_wanted({"LD_LIBRARY_PATH": f"/lib:{tmp_path}"})

    def test_the_user_has_the_last_word(self) -> None:
        assert not emulation_is_wanted({"ASCEND_EMULATOR": "0"})
        with pytest.raises(SettingsError, match="ASCEND_EMULATOR is 'perhaps': give 1 or 0"):
            emulation_is_wanted({"ASCEND_EMULATOR": "perhaps"})


class TestCost:
    def test_a_program_without_torch_npu_loads_nothing_of_ours_but_the_hook(self) -> None:
        done = run("import json, sys; print(json.dumps(sorted(sys.modules)))")
        modules = set(json.loads(done.stdout))
        assert {name for name in modules if name.startswith("ascend_emulator")} == {
            "ascend_emulator",
            "ascend_emulator._hook",
        }
        # `python -I -S` is the interpreter alone: our two modules may bring nothing else in.
        bare = run("import subprocess, sys; print('typing' in sys.modules, 'tomllib' in sys.modules)")
        assert bare.stdout == "False False\n"


class TestNotice:
    def test_it_names_the_machine_and_the_way_out(self) -> None:
        notice = activation.notice(Settings(chip="910B3", count=1))
        assert notice.startswith("ascend-emulator: 1 chip Ascend910B3 (")
        assert "ASCEND_EMULATOR=0" in notice
        assert "\n" not in notice

    def test_it_is_said_once_in_a_process_tree(self) -> None:
        prepare = "from ascend_emulator.activation import prepare_environment as prepare; prepare(); "
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{prepare}'], check=True)"
        assert run(f"{prepare} prepare(); {child}").stderr.count("ascend-emulator:") == 1


class TestLibraries:
    def test_a_broken_installation_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("ASCEND_EMULATOR_LIB_DIR", raising=False)
        monkeypatch.setattr(activation, "PACKAGE", tmp_path)
        with pytest.raises(ImportError, match=r"libascendcl\.so is missing; reinstall with"):
            activation.load_libraries()

    def test_a_bad_setting_surfaces_at_the_import(self) -> None:
        done = run("import torch_npu", ASCEND_EMULATOR_CHIP="h100", TORCH_DEVICE_BACKEND_AUTOLOAD="0")
        assert done.returncode == 1
        assert "ascend-emulator: Unknown chip 'h100': choose one of 310P3" in done.stderr
