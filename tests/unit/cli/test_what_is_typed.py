"""What users, tools and files write, read at its borders: flags, devices, names, rights, versions, tables."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascend_cli.deploy import names, service
from ascend_cli.deploy.systemd import quoted
from ascend_cli.doctor.advisories import parse_version
from ascend_cli.doctor.versions import _older, _older_line
from ascend_cli.errors import UsageError
from ascend_cli.hardware import npu_smi
from ascend_cli.serving.flags import ServeFlags, spelled, without_secrets

from .conftest import Ascend

# -------------------------------------------------------------------------------------------------------- flags


def flags(*words: str) -> ServeFlags:
    return ServeFlags.read(words)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("1", 1), ("32k", 32_000), ("32K", 32_768), ("1.5k", 1_500), ("2m", 2_000_000), ("2M", 2 << 20), ("1g", 10**9),
     ("1G", 1 << 30), ("0.5K", 512), ("-1", None), ("auto", None)],
)  # fmt: skip
def test_numbers_of_tokens(text: str, tokens: int | None) -> None:
    assert flags(f"--max-model-len={text}").tokens("--max-model-len") == tokens


@pytest.mark.parametrize("text", ["0", "-2", "x", "1kk", "1 k", "0.0k", ".5k", "1t", ""])
def test_what_is_no_number_of_tokens(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number of tokens"):
        flags(f"--max-model-len={text}").tokens("--max-model-len")


@pytest.mark.parametrize(("text", "share"), [("1", 1.0), ("0.5", 0.5), ("1e-3", 0.001)])
def test_shares(text: str, share: float) -> None:
    assert flags("--gpu-memory-utilization", text).share("--gpu-memory-utilization") == share


@pytest.mark.parametrize("text", ["0", "1.01", "x", "nan", "-0.5"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="is not a share"):
        flags(f"--gpu-memory-utilization={text}").share("--gpu-memory-utilization")


def test_counts() -> None:
    assert flags("-tp", "4").count("--tensor-parallel-size") == 4
    assert flags("-tp=1").count("--tensor-parallel-size") == 1
    assert flags().count("--tensor-parallel-size") is None and not flags().has("--port")
    for text in ("0", "x", "²", "1.0", "-1"):
        with pytest.raises(UsageError, match="at least 1"):
            flags(f"--tensor-parallel-size={text}").count("--tensor-parallel-size")


def test_ports() -> None:
    assert flags().port == 8000 and flags("--port", "1").port == 1 and flags("--port", "65535").port == 65535
    for text in ("0", "65536", "x", "-1", "８"):
        with pytest.raises(UsageError, match="1 to 65535"):
            _ = flags(f"--port={text}").port


@pytest.mark.parametrize(
    ("words", "is_open"),
    [
        ([], False),
        (["--host", "localhost"], False),
        (["--host", "127.0.0.2"], False),
        (["--host", "::1"], False),
        (["--host", "0.0.0.0"], True),
        (["--host", "10.0.0.1"], True),
        (["--host", "0.0.0.0", "--uds", "/s"], False),
    ],
)
def test_hosts_that_others_reach(words: list[str], is_open: bool) -> None:
    assert flags(*words).is_open is is_open


def test_spellings() -> None:
    assert spelled(["--max_model_len=5_0", "-tp=2", "value_x", "-O=3", "--a_b", "x=1", "-cc=a=b"]) == [
        "--max-model-len=5_0", "-tp", "2", "value_x", "-O=3", "--a-b", "x=1", "-cc", "a=b",
    ]  # fmt: skip


def test_a_file_of_flags_and_the_command_line_over_it(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("port: 9000\nmax_model_len: 100\nhost: null\nother: 1\napi-key: [a, b]\n")
    found = flags("--config", str(file), "--port", "9001")
    assert found.values == {"port": "9001", "max_model_len": 100, "api_key": ["a", "b"]}
    assert found.get("--api-key") == "a b" and found.get("--max-model-len") == "100"
    for text in ("- 1\n", "a: [", ""):
        file.write_text(text)
        with pytest.raises(UsageError, match=r"c\.yaml"):
            flags("--config", str(file))
    with pytest.raises(UsageError, match="flags after --"):
        flags("--port")


def test_secrets_leave_the_command_line() -> None:
    kept, carried = without_secrets(["--a", "--api-key", "k", "--b", "--hf_token=t", "c"])
    assert kept == ["--a", "--b", "c"] and carried == {"VLLM_API_KEY": "k", "HF_TOKEN": "t"}
    for words in (["--api-key"], ["--api-key", ""], ["--api-key="], ["--api-key", " ", "k"]):
        with pytest.raises(UsageError, match="is empty"):
            without_secrets(words)
    with pytest.raises(UsageError, match="names several"):
        without_secrets(["--api-key", "a", "b"])


@given(st.lists(st.text(max_size=12), max_size=6))
def test_nothing_but_secrets_is_taken_away(words: list[str]) -> None:
    plain = [word for word in words if not word.replace("_", "-").startswith(("--api-key", "--hf-token"))]
    assert without_secrets(plain) == (plain, {})


# ------------------------------------------------------------------------------------------------------- deploy


@pytest.mark.parametrize(
    ("text", "chips"), [("0", (0,)), ("0,1", (0, 1)), ("0-3", (0, 1, 2, 3)), (" 2 - 3 , 7", (2, 3, 7)), ("63", (63,))]
)
def test_lists_of_chips(text: str, chips: tuple[int, ...]) -> None:
    assert service.parse_devices(text) == chips


@pytest.mark.parametrize("text", ["", "a", "3-1", "64", "0-64", "0,0", "0-2,1", "1,", "-1", "0-1-2"])
def test_lists_of_chips_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(text))):
        service.parse_devices(text)


@given(st.lists(st.integers(0, 63), min_size=1, max_size=8, unique=True))
def test_lists_of_chips_are_read_as_written(chips: list[int]) -> None:
    assert service.parse_devices(",".join(map(str, chips))) == tuple(chips)


def seen(devices: tuple[int, ...]) -> str:
    return service.Service.visible_devices.fget(SimpleNamespace(devices=devices))  # type: ignore[attr-defined, no-any-return]


def test_forms_of_visible_devices() -> None:
    assert seen((0,)) == "0" and seen((3,)) == "3"
    assert seen((0, 1)) == "0-1" and seen((2, 3, 4)) == "2-4"
    assert seen((0, 2)) == "0,2" and seen((1, 0)) == "1,0" and seen((0, 1, 3)) == "0,1,3"


@pytest.mark.parametrize(
    ("fits", "longest", "context"),
    [
        (100_000, 262_144, 40_960),  # what a service can afford
        (100_000, 40_960, 40_960),
        (100_000, 36_000, 36_000),
        (8_192, 8_192, 8_192),  # a short model whole
        (20_000, 262_144, 20_000),  # what fits
        (100_000, 2_048, 32_768),
    ],
)
def test_the_context_of_a_service(fits: int, longest: int, context: int) -> None:
    assert service._context(SimpleNamespace(max_context=fits, model_max_context=longest)) == context  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("owner", "group", "mode", "readable"),
    [(1000, 0, 0o500, True), (1000, 0, 0o455, False), (0, 1000, 0o050, True), (0, 1000, 0o705, False),
     (0, 0, 0o005, True), (0, 0, 0o770, False), (0, 0, 0o004, False)],
)  # fmt: skip
def test_folders_that_the_container_s_user_reads(
    owner: int, group: int, mode: int, readable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = SimpleNamespace(st_uid=owner, st_gid=group, st_mode=0o040000 | mode)
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda folder: status)
        assert service._is_readable("/x") is readable
    assert service._is_readable("/no/such/folder"), "what is elsewhere is not judged"


def test_weights_that_only_their_writer_may_read_are_told(tmp_path: Path) -> None:
    """safetensors writes files with 0600: the container would end minutes after its start."""
    tmp_path.chmod(0o755)
    for name, mode in (("config.json", 0o644), ("model.safetensors", 0)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    assert not service._is_readable(str(tmp_path))
    (tmp_path / "model.safetensors").chmod(0o644)
    assert service._is_readable(str(tmp_path))


def test_names_at_their_longest() -> None:
    for target, longest in (("docker", 63), ("k8s", 50)):
        assert names.check_name("a" * longest, target) == "a" * longest
        with pytest.raises(UsageError, match=f"at most {longest}"):
            names.check_name("a" * (longest + 1), target)
    assert names.check_namespace("a" * 63) == "a" * 63
    for wrong in ("a" * 64, "", "A", "-a", "a-", "a_b"):
        with pytest.raises(UsageError, match="--namespace"):
            names.check_namespace(wrong)
    for name, target in (
        ("A", "k8s"),
        ("1a", "k8s"),
        ("a-", "k8s"),
        ("_a", "docker"),
        ("", "docker"),
        ("a b", "compose"),
    ):
        with pytest.raises(UsageError, match="--name"):
            names.check_name(name, target)
    assert names.check_name("1A_b.c", "docker") == "1A_b.c"
    assert names.check_name("proxy", "docker") == "proxy"
    with pytest.raises(UsageError, match="another container"):
        names.check_name("proxy", "compose")


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("vllm", None),
        ("a/b:v1", "v1"),
        ("quay.io/ascend/x:v1-310p", "v1-310p"),
        ("localhost:5000/x", None),
        ("host:5000/x:1", "1"),
        ("x@sha256:" + "0" * 64, None),
        ("x:" + "t" * 128, "t" * 128),
    ],
)
def test_images(image: str, tag: str | None) -> None:
    assert names.check_image(image)["tag"] == tag


@pytest.mark.parametrize(
    "image", ["", "X", "x:", "x:-a", "x y", "x@sha256:" + "0" * 63, "x:" + "t" * 129, "/x", "x/", "x:a:b", "a..b/x:1/"]
)
def test_images_that_are_none(image: str) -> None:
    with pytest.raises(UsageError, match="is no image"):
        names.check_image(image)


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\x00", "a\u2028b", "a\u2029", "\x7f"])
def test_controls_in_texts(text: str) -> None:
    with pytest.raises(UsageError, match="--x"):
        names.check_text("--x", text)
    with pytest.raises(UsageError, match="--x"):
        names.check_mount("--x", text)


def test_paths_that_docker_mounts() -> None:
    assert names.check_mount("--x", "/多 a") == "/多 a"
    with pytest.raises(UsageError, match="colon"):
        names.check_mount("--x", "/a:b")


def test_words_of_systemd() -> None:
    assert quoted('a "b" \\ %h $x') == '"a \\"b\\" \\\\ %%h $$x"'


# ----------------------------------------------------------------------------------------------------- versions


@pytest.mark.parametrize(
    ("older", "newer"),
    [("8.0.0", "8.1.0"), ("8.9.0", "8.10.0"), ("8.5.0rc1", "8.5.0"), ("25.2.0", "25.5.0"), ("0.9.2", "0.10.0")],
)
def test_the_order_of_versions(older: str, newer: str) -> None:
    assert parse_version(older) < parse_version(newer)
    assert _older(older, newer) and not _older(newer, older) and not _older(newer, newer)


def test_lines_of_versions() -> None:
    assert _older_line("24.1.0", "25.0.0") and not _older_line("25.0.rc1.1", "25.0.0")
    assert not _older_line("25.1.0", "25.0.9") and not _older_line("nothing", "25.0.0")
    assert not _older("nothing", "25.0.0") and _older("8.5.0.RC1", "8.5.0")


# ------------------------------------------------------------------------------------------------------ npu-smi


@pytest.mark.parametrize(
    ("text", "number", "whole"),
    [("12", 12.0, 12), ("12.5", 12.5, None), ("-3", -3.0, None), ("NA", None, None), ("-", None, None),
     ("", None, None),
     ("1" * 15, float("1" * 15), int("1" * 15)), ("1" * 16, float("1" * 16), None), ("²", None, None)],
)  # fmt: skip
def test_figures(text: str, number: float | None, whole: int | None) -> None:
    assert npu_smi._number(text) == number
    assert npu_smi._whole(text) == whole


CHIP = [
    "| NPU     Name       | Health | Power(W)  Temp(C)  Hugepages-Usage(page) |",
    "| Chip    Device     | Bus-Id | AICore(%) Memory-Usage(MB)               |",
]


def chip(upper: str, lower: str, *more: str) -> npu_smi.Reading:
    return npu_smi.parse("\n".join(["npu-smi 25.5.0", *CHIP, upper, lower, *more]))


def test_a_chip_of_two_rows() -> None:
    reading = chip("| 3 310P3 | OK | 12.5 45 3 / 15 |", "| 1 7 | 0000:C1:00.0 | 5 1529/ 44278 |")
    assert reading.version == "25.5.0" and reading.odd_rows == ()
    assert reading.chips == (
        npu_smi.ChipReading(3, 1, 7, "310P3", "OK", "0000:C1:00.0", 45.0, 12.5, 5.0, 1529, 44278, 3, 15),
    )  # fmt: skip
    absent = chip("| 3 Ascend910 | OK | NA - 0 / 0 |", "| 0 | NA | 0 0 / 0 0 / 65536 |").chips[0]
    assert (absent.name, absent.device_id, absent.chip_id) == ("910", 3, 0)
    assert (absent.power_w, absent.temperature_c, absent.memory_used_mib, absent.memory_total_mib) == (
        None,
        None,
        0,
        65536,
    )
    unknown = chip("| 3 310P3 | OK | NA |", "| 0 0 | NA | NA NA / NA |").chips[0]
    assert (unknown.memory_used_mib, unknown.memory_total_mib, unknown.hugepages_total) == (None, None, None)
    assert (unknown.temperature_c, unknown.utilization_percent) == (None, None)


def test_rows_that_are_odd_are_told() -> None:
    upper, lower = "| 3 310P3 | OK | 12.5 45 0 / 0 |", "| 1 7 | 0000:C1:00.0 | 5 1 / 2 |"
    assert chip(upper, "").odd_rows == ("NPU 3 310P3 OK has no second row",)
    assert len(chip(upper, lower, "| 4 310P3 | OK").odd_rows) == 1
    assert "is no number of an NPU" in chip(upper.replace(" 3 ", " x "), lower).odd_rows[0]
    assert "3 and 4 cells" in chip(upper, "| 1 7 | 0000:C1:00.0 | 5 | 1 / 2 |").odd_rows[0]
    assert "a second row without its first" in chip("|  | 0000:C1:00.0 | 5 1 / 2 |", "").odd_rows[0]


def test_processes_of_a_table() -> None:
    head = "| NPU     Chip   | Process id | Process name | Process memory(MB) |"
    upper, lower = "| 3 310P3 | OK | 12.5 45 0 / 0 |", "| 1 7 | 0000:C1:00.0 | 5 1 / 2 |"
    rows = [
        "| 3 1 | 42 | python | 100 |",
        "| 3 | 43 |  | - |",
        "| No running processes found in NPU 4 |",
        "| x | 1 | a | 2 |",
    ]
    reading = chip(upper, lower, head, *rows)
    assert reading.processes == (npu_smi.Process(3, 1, 42, "python", 100), npu_smi.Process(3, 0, 43, "", None))
    assert [process.pid for process in reading.processes_on(reading.chips[0])] == [42]


def test_the_most_telling_failure() -> None:
    def told(output: str) -> tuple[int | None, Any]:
        failure = npu_smi.failure_of(output, 1)
        return failure.return_code, failure.cause

    assert told("open failed, ret=4\ninit failed ret is -8005\n") == (-8005, npu_smi.Cause.INTERNAL)
    assert told("init failed ret is -8005\nfailed, return code: -8020") == (-8020, npu_smi.Cause.BUSY)
    assert told("drvRetCode=87\nfail ret -8005") == (87, npu_smi.Cause.BUSY)
    assert told("it failed, ret=4\nit failed, ret=-9") == (-9, npu_smi.Cause.OTHER)
    assert told("") == (None, npu_smi.Cause.OTHER)
    assert str(npu_smi.failure_of("\n first \n second", 3)) == "first"
    assert str(npu_smi.failure_of("", 3)) == "exit code 3"
    assert npu_smi.failures("| fail ret=3 |\nret=3 alone\n") == []


@pytest.mark.parametrize(
    "url", ["http://me:secret@127.0.0.1:1/v1", "me:secret@h", "http://h:1/v1?key=secret", "http://h/#secret"]
)
def test_a_secret_in_an_address_is_refused_unprinted(url: str, ascend: Ascend) -> None:
    for command in (["bench", "serve", "--url", url], ["top", "--once", "--url", url]):
        refused = ascend(*command)
        assert refused.code == 2
        assert "secret" not in refused.out + refused.err
        assert "--api-key-file" in refused.error_line
