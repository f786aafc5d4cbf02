"""What Ascend hardware is on this machine: `npu-smi`'s tables, the driver's files, the container set-up."""

from ascend_cli.hardware.host import Host, chip_named, chips_here, default_chip

__all__ = ["Host", "chip_named", "chips_here", "default_chip"]
