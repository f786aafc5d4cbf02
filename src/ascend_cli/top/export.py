"""The chips of this machine for Prometheus, from npu-smi, under the names of MindCluster's npu-exporter.

For hosts where npu-exporter does not run: the rules and the dashboard of `ascend deploy --monitoring` read either.
What npu-smi does not show is left out, never 0.
"""

from __future__ import annotations

import http.server
import re
import socket
from collections.abc import Iterator
from typing import Any

from ascend_cli.errors import UsageError
from ascend_cli.hardware import Host
from ascend_cli.hardware.npu_smi import ChipReading, NpuSmiError, Reading
from ascend_facts import chips

ADDRESS = re.compile(r"(?:(?P<host>[0-9A-Za-z.-]+|\[[0-9a-fA-F:]+\]):)?(?P<port>\d{1,5})")
HEALTHY = "OK"
HELP = {
    "machine_npu_nums": "Amount of npu installed on the machine.",
    "npu_chip_info_name": "the Ascend npu name with value '1'",
    "npu_chip_info_health_status": "the npu health status",
    "npu_chip_info_utilization": "the ai core utilization",
    "npu_chip_info_temperature": "the npu temperature",
    "npu_chip_info_power": "the npu power",
    "npu_chip_info_used_memory": "the npu used memory",
    "npu_chip_info_total_memory": "the npu total memory",
    "npu_chip_info_hbm_used_memory": "the npu hbm used memory",
    "npu_chip_info_hbm_total_memory": "the npu hbm total memory",
    "npu_chip_info_process_info_num": "the npu process num",
}


def exposition(reading: Reading) -> str:
    """A reading in Prometheus' text format. Memory is in MB, as npu-exporter gives it."""
    samples: dict[str, list[str]] = {name: [] for name in HELP}
    samples["machine_npu_nums"].append(f"machine_npu_nums {len(reading.chips)}")
    for chip in reading.chips:
        for name, found in _values(chip, reading):
            key = "name" if name == "npu_chip_info_name" else "model_name"
            labels = {"id": chip.device_id, key: chip.name, "pcie_bus_info": chip.bus_id}
            text = ",".join(f'{label}="{_escaped(str(value))}"' for label, value in labels.items())
            samples[name].append(f"{name}{{{text}}} {found:g}")
    lines = []
    for name, found_lines in samples.items():
        if found_lines:
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge", *found_lines]
    return "\n".join(lines) + "\n"


def _values(chip: ChipReading, reading: Reading) -> Iterator[tuple[str, float]]:
    memory = "npu_chip_info_" if _is_ddr(chip) else "npu_chip_info_hbm_"
    found = {
        "npu_chip_info_name": 1.0,
        "npu_chip_info_health_status": float(chip.health == HEALTHY),
        "npu_chip_info_utilization": chip.utilization_percent,
        "npu_chip_info_temperature": chip.temperature_c,
        "npu_chip_info_power": chip.power_w,
        f"{memory}used_memory": chip.memory_used_mib,
        f"{memory}total_memory": chip.memory_total_mib,
        "npu_chip_info_process_info_num": float(len(reading.processes_on(chip))),
    }
    yield from ((name, float(value)) for name, value in found.items() if value is not None)


def _is_ddr(chip: ChipReading) -> bool:
    """310P's memory is DDR, which npu-exporter names otherwise; so is that of chips that are not known here."""
    try:
        return chips.find(chip.name).family == "310p"
    except chips.UnknownChip:
        return True


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, or PORT of this machine's loopback. Raises UsageError."""
    found = ADDRESS.fullmatch(text)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise UsageError(f"--export {text!r} is no address: write PORT, or HOST:PORT")
    return (found["host"] or "127.0.0.1").strip("[]"), int(found["port"])


def server(address: tuple[str, int], host: Host | None = None) -> http.server.ThreadingHTTPServer:
    """A server of /metrics that reads npu-smi at each request, ready to run. Raises UsageError if it cannot listen."""
    machine = host or Host()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self._answer(404, "only /metrics is here\n")
                return
            try:
                self._answer(200, exposition(machine.npu_smi()))
            except NpuSmiError as error:
                self._answer(503, f"{error}\n")  # Prometheus takes this as down, which is what it is

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        daemon_threads = True

    try:
        return Server(address, Handler)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such host"
        raise UsageError(
            f"nothing can listen at {address[0]}:{address[1]} ({reason}): give another --export"
        ) from error
