"""Where CANN is installed, and the files in it that say its version."""

ROOTS = ("/usr/local/Ascend", "~/Ascend")  # of root, and of a user without its rights
ACTIVE = ("ascend-toolkit/latest", "cann", "cann/latest")  # links that installers set to the version in use
HOMES = (*ACTIVE, "cann-*", "ascend-toolkit/*")  # those, and each version beside them
FILES = (
    "aarch64-linux/ascend_toolkit_install.info",
    "x86_64-linux/ascend_toolkit_install.info",
    "ascend_toolkit_install.info",
    "compiler/version.info",
    "version.info",
)
