"""What CANN's codes are told as: each kind has its sentence and its remedy; what only looks like a code has none."""

from __future__ import annotations

import pytest

from ascend_facts.device_errors import explain, known_errors

LAUNCH = "The Inner error is reported as above. aclnnAdds launch: [Error 507014] the AI core timed out on chip 1"
SEEN = {  # as torch_npu and CANN word them
    "NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 43.20 GiB)": ("memory is used up", "--gpu-memory"),
    "[Error] error code is 207001, aclrtMallocAlign32 failed": ("207001", "--max-model-len"),
    LAUNCH: ("Chip 1", "aclnnAdds", "507014"),
    "The Inner error is reported as above. The current working operator name is aclnnAdd.": ("aclnnAdd", "lines above"),
    "The Inner error is reported as above, and the current working operator name is Im2col. aclopCompileAndExecute": (
        "(in Im2col)",
        "lines above",
    ),
    "call aclrtSynchronizeStream failed, error code is 507018": ("AI CPU", "report it"),
    "error code is 507033, chip 0 is busy: the driver answers -8020": ("another process", "npu-smi info"),
    "dcmi model initialized failed, because the device is used. ret is -8020": ("-8020", "ASCEND_RT_VISIBLE_DEVICES"),
    "chip 3 stopped answering (heartbeat lost). [Error 507010]": ("Chip 3", "reset this one"),
    "HcclAllReduce: waited 204 s for rank 1 (HCCL_EXEC_TIMEOUT=204 s)": ("HcclAllReduce", "the other ranks' lines"),
}


@pytest.mark.parametrize("text", SEEN)
def test_it_is_told_in_one_line(text: str) -> None:
    told = explain(text, "a step was computed", 0)
    assert told is not None
    assert all(words in told for words in SEEN[text]), told
    assert "while a step was computed" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "text", ["", "KeyError: 'q_proj'", "took 1507014 us", "207001.5 tokens/s of port 850700", "x-80051"]
)
def test_what_is_no_error_of_the_device_is_left_alone(text: str) -> None:
    assert explain(text, "weights were loaded") is None


def test_every_kind_has_a_remedy_and_no_code_two_meanings_first() -> None:
    codes = [code for error in known_errors() for code in error.codes]
    assert all(error.remedy.endswith(".") and error.says for error in known_errors())
    assert len(codes) == len(set(codes))


def test_an_error_that_comes_when_an_output_is_waited_for_has_its_phase() -> None:
    """Asynchronous scheduling asks the step's output for its tokens after the method has returned."""
    from ascend_plugin import phases

    class Output:
        def get_output(self) -> None:
            raise RuntimeError("NPU function error: aclrtSynchronizeEvent(event_), error code is 507015")

    @phases.phase("tokens were sampled")
    def sample(worker: object) -> Output:
        return Output()

    with pytest.raises(phases.DeviceFailed, match="while tokens were sampled"):
        sample(object()).get_output()
