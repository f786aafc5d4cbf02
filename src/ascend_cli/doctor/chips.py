"""Chips as the driver shows them: present, healthy, free, paired, and open to the user who will serve."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

from ascend_cli.doctor.findings import Finding, error, note, ok, warning
from ascend_cli.doctor.versions import DRIVER, supported
from ascend_cli.hardware import Host
from ascend_cli.hardware.host import spec_of
from ascend_cli.hardware.npu_smi import ChipReading, NpuSmiError, Reading
from ascend_facts.chips import UnknownChip

CONTAINER_USER = 1000
SERVICE_USER_NAME = "HwHiAiUser"
COMMON_NODES = ("davinci_manager", "devmm_svm", "hisi_hdc")


def check_chips(host: Host, emulated: bool) -> Iterator[Finding]:
    """Everything that one reading of npu-smi tells; a failure of it is a finding of its own."""
    if emulated and host.read(DRIVER) is None:
        yield note("chips", "no NPU here: chips are emulated", "ASCEND_EMULATOR=0 turns emulation off")
        return
    try:
        reading = host.npu_smi()
    except NpuSmiError as failure:
        yield _npu_smi_failed(failure)
        return
    if not reading.chips:
        why = "the driver is loaded but sees no card"
        yield error(
            "chips",
            "npu-smi shows no chip",
            why,
            "lspci -d 19e5: ; if a card is listed, reinstall the driver, else reseat it",
        )
        return
    yield ok("chips", f"{len(reading.chips)} x {reading.chips[0].name} (npu-smi {reading.version})")
    yield from _pairing(reading)
    yield from _health(reading)
    yield from _free(reading)
    yield from _nodes(host, reading)
    yield from _hugepages(reading)


def _npu_smi_failed(failure: NpuSmiError) -> Finding:
    if failure.is_busy:
        why = "a chip serves one container at a time; this one is held by another (-8005, drvRetCode 87)"
        fix = "docker ps, stop the container that holds it, or take other chips with --devices"
        return error("npu-smi", f"the chips are busy: {failure}", why, fix)
    if "was not found" in str(failure):
        why = "it tells chips, memory and health"
        return error(
            "npu-smi",
            "npu-smi was not found",
            why,
            "in a container add -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi:ro",
        )
    return error(
        "npu-smi",
        f"npu-smi failed: {failure}",
        "the driver does not answer",
        "dmesg | grep -i davinci; reboot if it hangs",
    )


def _pairing(reading: Reading) -> Iterator[Finding]:
    """Chips by card: a Duo card has two, and software that maps them one to one loses half the machine."""
    cards: dict[int, list[ChipReading]] = defaultdict(list)
    for chip in reading.chips:
        cards[chip.npu_id].append(chip)
    try:
        spec = spec_of(reading.chips[0])
    except UnknownChip:
        yield warning("pairing", f"{reading.chips[0].name} is not a chip known here", "its limits cannot be checked")
        return
    if spec.chips_per_card == 1:
        return
    wanted = spec.chips_per_card if spec.name != "310P3" or any(len(chips) > 1 for chips in cards.values()) else 1
    broken = [card for card, chips in cards.items() if len(chips) < wanted]
    for card in broken:
        missing = sorted(set(range(wanted)) - {chip.chip_id for chip in cards[card]})
        yield error(
            "pairing",
            f"card {card} shows {len(cards[card])} of its {wanted} chips (missing chip {', '.join(map(str, missing))})",
            "half the card's memory is lost, and a server split over the pair cannot start",
            f"npu-smi info -t health -i {card} -c {missing[0]}; reboot, and reseat the card if it stays away",
        )
    whole = [chips for chips in cards.values() if len(chips) == wanted and wanted > 1]
    if whole:
        pairs = "  ".join("+".join(str(chip.device_id) for chip in chips) for chips in whole)
        yield ok("pairing", f"pairs on one card (/dev/davinciN): {pairs}")


def _health(reading: Reading) -> Iterator[Finding]:
    for chip in reading.chips:
        if chip.health.upper() != "OK":
            yield error(
                "health",
                f"chip {chip.device_id} (card {chip.npu_id}, chip {chip.chip_id}) reports {chip.health}",
                "operators on it may fail or hang",
                f"npu-smi info -t health -i {chip.npu_id} -c {chip.chip_id}",
            )


def _free(reading: Reading) -> Iterator[Finding]:
    """Memory that is taken before the server starts is missing from its cache, or stops it."""
    idle_mib = supported()["limits"]["idle_chip_mib"]
    for chip in reading.chips:
        processes = reading.processes_on(chip)
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in processes)
        who = f" by {names}" if names else ""
        if processes or chip.memory_used_mib > idle_mib:
            yield warning(
                "memory",
                f"chip {chip.device_id} has {chip.memory_used_mib:,} of {chip.memory_total_mib:,} MiB in use{who}",
                "a second server on the chip gets what is left, or fails with error -8005 in a container",
                f"kill {processes[0].pid}" if processes else "docker ps: a container may hold it",
            )
    free = sum(chip.memory_total_mib - chip.memory_used_mib for chip in reading.chips)
    yield ok("memory", f"{free / 1024:,.1f} GiB free over {len(reading.chips)} chips")


def _nodes(host: Host, reading: Reading) -> Iterator[Finding]:
    """Device nodes: there, and open to this user and to the user of containers."""
    nodes = {node.path.rpartition("/")[2]: node for node in host.device_nodes()}
    wanted = [*(f"davinci{chip.device_id}" for chip in reading.chips), *COMMON_NODES]
    missing = [name for name in wanted if name not in nodes]
    if missing:
        flags = " ".join(f"--device /dev/{name}" for name in missing)
        why = "a process opens the chip through them"
        yield error(
            "device nodes",
            f"missing: {', '.join(f'/dev/{name}' for name in missing)}",
            why,
            f"in a container add {flags}",
        )
    present = [nodes[name] for name in wanted if name in nodes]
    user, groups = os.getuid(), set(os.getgroups())
    closed = [node.path for node in present if not node.may_be_opened_by(user, groups) and node.mode & 0o060 == 0o060]
    if closed:
        group = present[0].group
        fix = f"sudo usermod -aG {_group_name(host, group)} $USER, then log in again"
        yield error(
            "permissions", f"user {user} may not open {', '.join(closed)}", "the server would start without chips", fix
        )
    wrong = [
        node
        for node in present
        if (node.owner, node.group, node.mode & 0o060) != (CONTAINER_USER, CONTAINER_USER, 0o060)
    ]
    if wrong:
        first, paths = wrong[0], " ".join(node.path for node in wrong)
        owner = f"{CONTAINER_USER}:{CONTAINER_USER}"
        what = f"{paths}: {first.owner}:{first.group} mode {first.mode:o}, expected {owner} mode 660"
        why = "users in the driver's group, and containers that run as it, cannot open the chips; only root can"
        fix = f"sudo chown {CONTAINER_USER}:{CONTAINER_USER} {paths} && sudo chmod 660 {paths}"
        yield error("permissions", what, why, fix)
    elif present and not closed:
        yield ok("permissions", f"{len(present)} device nodes open to uid {user} and uid {CONTAINER_USER}")
    yield from _service_user(host)


def _service_user(host: Host) -> Iterator[Finding]:
    """HCCL looks its user up in /etc/passwd and fails with error 19 if there is none."""
    users = [line.split(":") for line in (host.read("/etc/passwd") or "").splitlines()]
    name = next((fields[0] for fields in users if len(fields) > 2 and fields[2] == str(CONTAINER_USER)), None)
    if name is None:
        yield warning(
            "service user",
            f"/etc/passwd has no user with uid {CONTAINER_USER}",
            "the driver's files belong to it, and HCCL fails for an unknown user (HcclGetRootInfo error 19)",
            f"sudo groupadd -g {CONTAINER_USER} {SERVICE_USER_NAME}; "
            f"sudo useradd -u {CONTAINER_USER} -g {CONTAINER_USER} -m {SERVICE_USER_NAME}",
        )
    else:
        yield ok("service user", f"uid {CONTAINER_USER} is {name}")


def _group_name(host: Host, group: int) -> str:
    lines = [line.split(":") for line in (host.read("/etc/group") or "").splitlines()]
    return next((fields[0] for fields in lines if len(fields) > 2 and fields[2] == str(group)), str(group))


def _hugepages(reading: Reading) -> Iterator[Finding]:
    full = [chip for chip in reading.chips if chip.hugepages_total and chip.hugepages_used == chip.hugepages_total]
    for chip in full:
        why = "memory that asks for huge pages falls back to small ones, or fails"
        yield warning("hugepages", f"chip {chip.device_id}: all {chip.hugepages_total} huge pages are in use", why)
