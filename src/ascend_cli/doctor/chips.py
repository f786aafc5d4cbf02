"""Chips as the driver shows them: present, healthy, free, paired, and open to the user who will serve."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator

from ascend_cli.doctor.findings import Finding, error, note, ok, warning
from ascend_cli.doctor.versions import DRIVER, supported
from ascend_cli.hardware import Host
from ascend_cli.hardware.host import spec_of
from ascend_cli.hardware.npu_smi import Cause, ChipReading, NpuSmiError, Process, Reading
from ascend_facts.chips import UnknownChip
from ascend_facts.chips import chips as known_chips

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
        yield _npu_smi_failed(host, failure)
        return
    yield from _odd_rows(reading)
    if not reading.chips:
        why = "the driver is loaded but sees no card"
        yield error(
            "chips",
            "npu-smi shows no chip",
            why,
            "lspci -d 19e5: ; if a card is listed, reinstall the driver, else reseat it",
        )
        return
    kinds = Counter(chip.name for chip in reading.chips)
    counts = ", ".join(f"{count} x {name}" for name, count in kinds.items())
    yield ok("chips", f"{counts} (npu-smi {reading.version})")
    if len(kinds) > 1:
        others = ",".join(str(chip.device_id) for chip in reading.chips if chip.name != reading.chips[0].name)
        yield note(
            "chips",
            f"{len(kinds)} kinds of chips are here; commands plan with the {reading.chips[0].name}",
            f"one server takes chips of one kind: ASCEND_RT_VISIBLE_DEVICES={others} turns to the others",
        )
    yield from _pairing(host, reading)
    yield from _health(reading)
    yield from _free(reading)
    yield from _nodes(host, reading)
    yield from _hugepages(reading)


def _npu_smi_failed(host: Host, failure: NpuSmiError) -> Finding:
    if failure.cause is Cause.BUSY:
        why = f"a chip serves one container at a time; this one is held by another (code {failure.return_code})"
        fix = "docker ps, stop the container that holds it, or take other chips with --devices"
        return error("npu-smi", f"the chips are busy: {failure}", why, fix)
    if failure.cause is Cause.MISSING:
        why = "it tells chips, memory and health"
        fix = "in a container add -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi:ro"
        return error("npu-smi", "npu-smi was not found", why, fix)
    if failure.cause is Cause.HUNG:
        why = "a chip or the driver hangs"
        return error("npu-smi", str(failure), why, "dmesg | grep -i davinci; end what uses the chips, then reboot")
    if failure.cause is Cause.NO_TABLE:
        why = "this release cannot read what this npu-smi prints"
        return error("npu-smi", str(failure), why, "npu-smi info, and report its output with its version")
    if failure.cause is Cause.INTERNAL:
        return _internal_failure(host, failure)
    why, fix = "the driver does not answer", "dmesg | grep -i davinci; reboot if it hangs"
    return error("npu-smi", f"npu-smi failed: {failure}", why, fix)


def _internal_failure(host: Host, failure: NpuSmiError) -> Finding:
    """-8005 has several causes; what the machine shows decides, and where it shows nothing all are named."""
    what = f"npu-smi failed: {failure}"
    closed = [node.path for node in host.device_nodes() if not node.may_be_opened_by(os.getuid(), set(os.getgroups()))]
    if closed:
        why = f"user {os.getuid()} has no right to open {', '.join(closed)}"
        return error("npu-smi", what, why, "run it as root or as a member of the nodes' group")
    if os.getuid() == 0 and _effective_capabilities(host) == 0:
        why = "this container's root has no capabilities, so the nodes' owner and mode bind it too"
        return error("npu-smi", what, why, "add the nodes' group to the container: --group-add 1000")
    if _driver_is_newer_than_boot(host):
        why = "the driver's files are newer than the last start of this machine: it was updated without a reboot"
        return error("npu-smi", what, why, "sudo reboot")
    why = "one of: another container holds the chips; the driver was updated without a reboot; the driver hangs"
    return error("npu-smi", what, why, "docker ps; if no container holds them, reboot; then dmesg | grep -i davinci")


def _effective_capabilities(host: Host) -> int | None:
    lines = (host.read("/proc/self/status") or "").splitlines()
    text = next((line.partition(":")[2].strip() for line in lines if line.startswith("CapEff:")), "")
    try:
        return int(text, 16)
    except ValueError:
        return None


def _driver_is_newer_than_boot(host: Host) -> bool:
    lines = (host.read("/proc/stat") or "").splitlines()
    booted = next((line.split()[1] for line in lines if line.startswith("btime ") and len(line.split()) == 2), "")
    try:
        return booted.isdigit() and host.path(DRIVER).stat().st_mtime > int(booted)
    except OSError:
        return False


def _odd_rows(reading: Reading) -> Iterator[Finding]:
    for row in reading.odd_rows:
        yield error(
            "chips",
            f"npu-smi shows a chip that cannot be read: {row}",
            "a chip that fell off the bus or is being reset shows so; a server that takes it would fail",
            "npu-smi info; reboot if it stays so",
        )


def _pairing(host: Host, reading: Reading) -> Iterator[Finding]:
    """Chips by card: a Duo card has two, and software that maps them one to one loses half the machine."""
    cards: dict[int, list[ChipReading]] = defaultdict(list)
    for chip in reading.chips:
        cards[chip.npu_id].append(chip)
    try:
        spec = spec_of(reading.chips[0])
    except UnknownChip:
        known = ", ".join(spec.name for spec in known_chips())
        yield warning(
            "pairing",
            f"{reading.chips[0].name} is not a chip known here",
            f"its limits cannot be checked; known are {known}",
        )
        return
    if spec.chips_per_card == 1:
        return
    wanted = spec.chips_per_card if spec.name != "310P3" or any(len(chips) > 1 for chips in cards.values()) else 1
    broken = [card for card, chips in cards.items() if len(chips) < wanted]
    if broken and _is_container(host):
        part = ", ".join(str(card) for card in broken)
        yield note("pairing", f"this container has some of the chips of card {part}", "the others are not its own")
        broken = []
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


def _is_container(host: Host) -> bool:
    """Docker and containerd leave these; Kubernetes a mount of its own."""
    return any(host.path(file).exists() for file in ("/.dockerenv", "/run/.containerenv", "/run/secrets/kubernetes.io"))


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
        names = ", ".join(f"{process.name or 'a process'} (pid {process.pid})" for process in processes)
        who = f" by {names}" if names else ""
        used, total = chip.memory_used_mib, chip.memory_total_mib
        if used is None or total is None:
            yield warning("memory", f"npu-smi does not show how much of chip {chip.device_id} is in use{who}", "")
        elif processes or used > idle_mib:
            yield warning(
                "memory",
                f"chip {chip.device_id} has {used:,} of {total:,} MiB in use{who}",
                "a second server on the chip gets what is left, or finds it busy in a container",
                _who_holds_it(processes),
            )
    shown = [
        chip.memory_total_mib - chip.memory_used_mib
        for chip in reading.chips
        if chip.memory_used_mib is not None and chip.memory_total_mib is not None
    ]
    if shown:
        yield ok("memory", f"{sum(shown) / 1024:,.1f} GiB free over {len(shown)} chips")


def _who_holds_it(processes: list[Process]) -> str:
    """npu-smi's process numbers may be another container's: a kill is named only for a process that is seen here."""
    ours = [process for process in processes if process.name and os.path.exists(f"/proc/{process.pid}")]
    return f"kill {ours[0].pid}" if ours else "docker ps: a container may hold it"


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
    service_uid, service_gid = _driver_user(host)
    wrong = [
        node for node in present if (node.owner, node.group, node.mode & 0o060) != (service_uid, service_gid, 0o060)
    ]
    if wrong:
        first, paths = wrong[0], " ".join(node.path for node in wrong)
        owner = f"{service_uid}:{service_gid}"
        what = f"{paths}: {first.owner}:{first.group} mode {first.mode:o}, expected {owner} mode 660"
        why = "users in the driver's group, and containers that run as it, cannot open the chips; only root can"
        fix = f"sudo chown {owner} {paths} && sudo chmod 660 {paths}"
        yield error("permissions", what, why, fix)
    elif present and not closed:
        yield ok("permissions", f"{len(present)} device nodes open to uid {user} and uid {service_uid}")
    if service_uid != CONTAINER_USER and present:
        yield note(
            "permissions",
            f"the driver's user is uid {service_uid} here, images have {CONTAINER_USER}",
            "a container that runs as uid 1000 cannot open the chips by itself",
            f"give the container the nodes' group: --group-add {service_gid}",
        )
    yield from _service_user(host)


def _driver_user(host: Host) -> tuple[int, int]:
    """Uid and gid of the user that the driver was installed for: /etc/ascend_install.info names it."""
    name = host.settings("/etc/ascend_install.info").get("UserName", SERVICE_USER_NAME)
    for line in (host.read("/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) > 3 and fields[0] == name and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3])
    return CONTAINER_USER, CONTAINER_USER


def _service_user(host: Host) -> Iterator[Finding]:
    """HCCL looks its user up in /etc/passwd and fails with error 19 if there is none."""
    uid, _ = _driver_user(host)
    users = [line.split(":") for line in (host.read("/etc/passwd") or "").splitlines()]
    name = next((fields[0] for fields in users if len(fields) > 2 and fields[2] == str(uid)), None)
    if name is None:
        yield warning(
            "service user",
            f"/etc/passwd has no user with uid {uid}",
            "the driver's files belong to it, and HCCL fails for an unknown user (HcclGetRootInfo error 19)",
            f"sudo groupadd -g {uid} {SERVICE_USER_NAME}; sudo useradd -u {uid} -g {uid} -m {SERVICE_USER_NAME}",
        )
    else:
        yield ok("service user", f"uid {uid} is {name}")


def _group_name(host: Host, group: int) -> str:
    lines = [line.split(":") for line in (host.read("/etc/group") or "").splitlines()]
    return next((fields[0] for fields in lines if len(fields) > 2 and fields[2] == str(group)), str(group))


def _hugepages(reading: Reading) -> Iterator[Finding]:
    full = [chip for chip in reading.chips if chip.hugepages_total and chip.hugepages_used == chip.hugepages_total]
    for chip in full:
        why = "memory that asks for huge pages falls back to small ones, or fails"
        yield warning("hugepages", f"chip {chip.device_id}: all {chip.hugepages_total} huge pages are in use", why)
