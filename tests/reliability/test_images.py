"""R15, R16: the container that `ascend deploy` renders serves as it says: read-only, unprivileged, without a network.

The command's own options are given to crun, an OCI runtime, as docker would; in place of the image come this machine's
libraries and the tree under test, read-only, and in place of chip and driver the emulator. So what is not seen here is
the image's own set of files (tests/unit/cli/test_dockerfile.py builds that) and CANN.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .results import record
from .server import ASCEND

ROOT = Path(__file__).parents[2]
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
USER = "HwHiAiUser:x:1000:1000::/tmp:/bin/bash\n"
LIMIT_S = 600
# Serves, asks as a client does, looks at what the server may do, ends it.
INSIDE = r"""
get() {
  { exec 3<> /dev/tcp/127.0.0.1/8000; } 2> /dev/null && printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3 && head -1 <&3
}
"$@" & server=$!
for _ in $(seq 500); do
  get /health | grep -q ' 200' && break
  kill -0 $server 2> /dev/null || break
  sleep 1
done
python ASK
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs):' /proc/$server/status
for place in /etc /usr /home ROOT; do touch $place/written 2> /dev/null && echo "WROTE $place"; done
kill -TERM $server; wait $server; echo "ENDED $?"
"""
ASK = """\
import httpx
for key in (open("/run/secrets/vllm_api_key").read().strip(), "another"):
    answer = httpx.post("http://127.0.0.1:8000/v1/completions", json={"model": "tiny", "prompt": "x", "max_tokens": 2},
                        headers={"Authorization": f"Bearer {key}"}, timeout=120)
    print("ANSWERED", answer.status_code)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or None in map(shutil.which, ("crun", "unshare")), reason="needs crun, and root to start it"
    ),
]


def rendered(model: Path, *options: str) -> tuple[dict[str, list[str]], list[str]]:
    """Of the docker command: options by name, and what runs in the image."""
    command = [ASCEND, "deploy", str(model), "--target", "docker", "--chip", "310P3", *options]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = shlex.split(text[text.index("docker run") :].split("\n\n")[0].replace("\\\n", " "))[2:]
    options_by_name: dict[str, list[str]] = {}
    flags = {"-d", "--init", "--read-only"}
    while words[0].startswith("-"):
        name = words.pop(0)
        options_by_name.setdefault(name, []).append("" if name in flags else words.pop(0))
    return options_by_name, words[1:]


def bind(source: str, target: str = "") -> dict[str, Any]:
    return {"destination": target or source, "type": "bind", "source": source, "options": ["rbind", "ro"]}


def places_of_python() -> list[str]:
    """Folders that the server's Python is made of, none inside another or the system's."""
    found: list[str] = []
    wanted = {
        ROOT,
        Path(sys.prefix),
        Path(sys.base_prefix),
        *(Path(place).resolve() for place in sys.path if Path(place).is_dir()),
    }
    for place in sorted(wanted):
        if not str(place).startswith(SYSTEM) and not any(place.is_relative_to(other) for other in found):
            found.append(str(place))
    return found


def specification(
    options: dict[str, list[str]], command: list[str], model: Path, key: Path, ask: Path
) -> dict[str, Any]:
    """An OCI configuration with what these options ask of docker."""
    subprocess.run(["crun", "spec"], cwd=ask.parent, check=True)
    base = json.loads((ask.parent / "config.json").read_text())
    user, group = map(int, options["--user"][0].split(":"))
    script = INSIDE.replace("ASK", "/tmp/ask.py").replace("ROOT", str(ROOT))
    environment = [f"PATH={Path(sys.executable).parent}:/usr/bin:/bin", "OMP_NUM_THREADS=1", *options["--env"]]
    base["process"] |= {
        "terminal": False,
        "args": ["/bin/bash", "-c", script, "--", *command],
        "user": {"uid": user, "gid": group},
        "cwd": options["--workdir"][0],
        "env": environment,
        "noNewPrivileges": "no-new-privileges" in options["--security-opt"],
    }
    if options["--cap-drop"] == ["ALL"]:
        base["process"]["capabilities"] = {}
    base["root"] = {"path": "rootfs", "readonly": "--read-only" in options}
    mounts = [mount for mount in base["mounts"] if mount["destination"] not in ("/dev/shm", "/sys", "/sys/fs/cgroup")]
    mounts.append(tmpfs("/dev/shm", "mode=1777,size=" + options["--shm-size"][0]))
    mounts += [tmpfs(*place.split(":")) for place in options["--tmpfs"]]
    mounts += [bind(place) for place in (*SYSTEM, *places_of_python(), str(model)) if Path(place).exists()]
    base["mounts"] = [*mounts, bind(str(key), "/run/secrets/vllm_api_key"), bind(str(ask), "/tmp/ask.py")]
    base["linux"].pop("resources", None)
    return dict(base)


def tmpfs(place: str, options: str) -> dict[str, Any]:
    return {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options.split(",")}


@pytest.mark.breaks("docker.sh.j2: its tmpfs elsewhere")
def test_the_rendered_container_serves_confined(tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    for file in model.iterdir():
        file.chmod(0o644)  # of root's, who writes them for root alone
    options, command = rendered(model, "--max-model-len", "2048", "--max-num-seqs", "8", "--served-model-name", "tiny")
    key, ask, root = tmp_path / "key", tmp_path / "ask.py", tmp_path / "rootfs"
    key.write_text("a-key\n")
    ask.write_text(ASK)
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/bash\n" + USER)
    (root / "etc/group").write_text("root:x:0:\nHwHiAiUser:x:1000:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    os.chown(key, 1000, 1000)
    (tmp_path / "config.json").write_text(json.dumps(specification(options, command, model, key, ask)))
    # crun 1.8 knows no mixture of the two kinds of control groups: it is shown none.
    run = (
        "mount --make-rprivate / && mount -t tmpfs tmpfs /sys/fs/cgroup && "
        f"crun --cgroup-manager=disabled run -b {tmp_path} battery-{os.getpid()}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", run], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    told = done.stdout + done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("ANSWERED")] == [
        "ANSWERED 200",
        "ANSWERED 401",
    ], told
    assert "Uid:\t1000\t1000\t1000\t1000" in told and "NoNewPrivs:\t1" in told
    assert "CapEff:\t0000000000000000" in told and "CapBnd:\t0000000000000000" in told
    assert "WROTE" not in told and "ENDED 0" in told, told
    record("R15", "rendered containers served, read-only and unprivileged", 1)
