"""What `@pytest.mark.breaks(TEXT)` means: for each TEXT the edits of this repository that make its test fail.

`python -m tests.reliability.breaks` makes them in a copy and sees the test fail. In the order of what that costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Of tests with parameters the one that is enough, as pytest writes it: the quickest that the switch touches.
PARAMETERS = {
    "test_a_broken_one_is_refused_by_name": "NaN",
    "test_the_command_refuses_it_in_one_line": "--dry-run-NaN",
    "test_requests_are_finished_before_the_server_ends": "15",
    "test_a_killed_engine_or_rank_ends_the_server_with_an_error": "1-EngineCore",
    "test_a_killed_server_leaves_no_engine": "1",
    "test_a_server_killed_while_it_starts_leaves_nothing": "2",
    "test_a_signal_while_it_starts_is_heeded": "0",
    "test_little_shared_memory": "1m",
}


@dataclass(frozen=True)
class Edit:
    """In `file`, `old`, which is there once, becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Switch:
    """Edits, and what makes their run shorter without sparing the test."""

    edits: tuple[Edit, ...]
    environment: dict[str, str] = field(default_factory=dict)


def one(file: str, old: str, new: str, **environment: str) -> Switch:
    """A switch of one edit."""
    return Switch((Edit(file, old, new),), environment)


SERVICE = "src/ascend_plugin/service"
SERVING = "src/ascend_cli/serving"
BATTERY = "tests/reliability"
# No switch here needs all engines or steps of a battery to be noticed.
SHORT = {"RELIABILITY": "", "RELIABILITY_STREAMS": "60"}

SWITCHES: dict[str, Switch] = {
    # ------------------------------------------------------------------ no server
    "compose._server: stop_grace_period of 30s": one(
        "src/ascend_cli/deploy/compose.py", '"stop_grace_period": "60s"', '"stop_grace_period": "30s"'
    ),
    "systemd.render: Restart=no": one("src/ascend_cli/deploy/systemd.py", '"Restart=on-failure"', '"Restart=no"'),
    "checkpoints._document: refuse what has an index": one(
        f"{SERVING}/checkpoints.py",
        '    config = documents.get("config.json", {})\n',
        '    _document(folder / "model.safetensors")\n    config = documents.get("config.json", {})\n',
    ),
    "decide._check_folder: leave check_checkpoint out": one(
        f"{SERVING}/decide.py",
        '({missing[0]}): download the rest into it")\n    check_checkpoint(folder)\n',
        '({missing[0]}): download the rest into it")\n',
    ),
    "safetensors_file: let OSError pass": one(
        "src/ascend_facts/safetensors_file.py",
        "    except OSError as error:\n        raise BrokenFile(file,",
        "    except ZeroDivisionError as error:\n        raise BrokenFile(file,",
    ),
    "decide.known_model: leave _check_folder out": one(
        f"{SERVING}/decide.py",
        "and not (placeholder and is_placeholder(model.folder)):\n        _check_folder(model.folder)\n",
        "and not (placeholder and is_placeholder(model.folder)):\n        pass\n",
    ),
    # ------------------------------------------------------------------ the server that tests share
    "limits._admit_to_route: ask for the key where a path is spelled plainly": one(
        f"{SERVICE}/limits.py",
        'if method != "OPTIONS" and not',
        'if method != "OPTIONS" and b"%" not in scope["raw_path"] and not',
    ),
    "routes.Keys.admit: return True": one(
        f"{SERVICE}/routes.py", "        if not self._digests or path in WITHOUT_KEY:\n", "        if True:\n"
    ),
    "flags.without_secrets: return flags, {}": one(
        f"{SERVING}/flags.py",
        "    kept: list[str] = []\n    environment: dict[str, str] = {}\n",
        "    return list(flags), {}\n    kept: list[str] = []\n    environment: dict[str, str] = {}\n",
    ),
    "bounds.Bounds: 100 messages": one(f"{SERVICE}/bounds.py", "messages: int = 2048", "messages: int = 100"),
    "limits._admit and _read: no bound": Switch(
        (
            Edit(
                f"{SERVICE}/limits.py",
                "        if length.isdigit() and int(length) > limit_kib << 10:\n",
                "        if False:\n",
            ),
            Edit(
                f"{SERVICE}/limits.py",
                "            if size > limit_kib << 10:\n                raise",
                "            if False:\n                raise",
            ),
        )
    ),
    "limits._read: no time limit": one(
        f"{SERVICE}/limits.py",
        "await asyncio.wait_for(receive(), self._bounds.body_s)",
        "await receive()",
    ),
    "grammars.serve: run the trials one after another": one(
        f"{SERVICE}/grammars.py",
        "                running[pid] = (number, time.monotonic() + 4 * limit_s)\n",
        "                print(number, _verdict(os.waitpid(pid, 0)[1]), flush=True)\n",
    ),
    "decide.prepare: leave --middleware out": one(
        f"{SERVING}/decide.py", '        added += ["--middleware", LIMITS]\n', "        pass\n"
    ),
    "limits._check_json: try grammars on the event loop": one(
        f"{SERVICE}/limits.py",
        "        await self._grammars.check(wanted)\n",
        '        __import__("time").sleep(30)\n        await self._grammars.check(wanted)\n',
    ),
    "limits._check_json: want a list of messages in every body": one(
        f"{SERVICE}/limits.py",
        "        wanted = list(structures(parsed))\n",
        '        list(parsed["messages"])\n        wanted = list(structures(parsed))\n',
    ),
    "limits._replay: never tell of a disconnect": one(
        f"{SERVICE}/limits.py",
        "        if given:\n            return await receive()\n",
        "        if given:\n            await asyncio.Event().wait()\n",
        **SHORT,
    ),
    "conftest.served: a cache of 4,096 blocks, in which nothing is preempted": one(
        f"{BATTERY}/conftest.py", '        "256",\n', '        "4096",\n'
    ),
    # ------------------------------------------------------------------ servers of one test
    "net.port_is_taken: return False": one(
        "src/ascend_cli/net.py", 'return probe.connect_ex(("127.0.0.1", port)) == 0', "return False"
    ),
    "service.set_server_defaults: leave the middleware out": one(
        f"{SERVICE}/__init__.py",
        "parser.set_defaults(middleware=[LIFETIME], shutdown_timeout=DRAIN_S)",
        "parser.set_defaults(shutdown_timeout=DRAIN_S)",
    ),
    "lifetime._close: leave out exchange.cut": one(
        f"{SERVICE}/lifetime.py", "            exchange.cut(reason)\n", "            pass\n"
    ),
    "lifetime._on_signal: ignore a second signal": one(
        f"{SERVICE}/lifetime.py", "        self._signals += 1\n", "        self._signals = 1\n"
    ),
    "lifetime._check_engine: return": one(
        f"{SERVICE}/lifetime.py",
        '        """Raises EngineFailed, which makes the exit code 1."""\n',
        '        """Raises EngineFailed, which makes the exit code 1."""\n        return\n',
    ),
    "orphans.prepare: return": one(
        f"{SERVICE}/orphans.py", "    if not _registered:\n", "    return\n    if not _registered:\n"
    ),
    "interrupted_start.prepare: return": one(
        f"{SERVICE}/interrupted_start.py",
        "    handler = signal.getsignal(signal.SIGTERM)\n",
        "    return\n    handler = signal.getsignal(signal.SIGTERM)\n",
    ),
    "lifetime._on_signal: no bound on a second signal": one(
        f"{SERVICE}/lifetime.py",
        "            threading.Thread(target=ending.end_for_certain, args=arguments, daemon=True).start()\n",
        "            pass\n",
    ),
    "lifetime._serve: leave a descriptor open": one(
        f"{SERVICE}/lifetime.py",
        '        exchange = Exchange(scope["path"], send)\n',
        '        __import__("os").open("/dev/null", 0)\n        exchange = Exchange(scope["path"], send)\n',
    ),
    "records.remember: let OSError pass": one(
        f"{SERVING}/records.py", "    except OSError:\n        return\n", "    except OSError:\n        raise\n"
    ),
    "lifetime._serve: note every request in a file": one(
        f"{SERVICE}/lifetime.py",
        '        exchange = Exchange(scope["path"], send)\n',
        '        with open(__import__("os").environ["XDG_RUNTIME_DIR"] + "/requests", "a") as notes:\n'
        '            notes.write(scope["path"].ljust(8192))\n'
        '        exchange = Exchange(scope["path"], send)\n',
    ),
    "bootstrap.main: its folder beside the package": one(
        f"{SERVING}/bootstrap.py",
        'tempfile.TemporaryDirectory(prefix="ascend-serve-")',
        'tempfile.TemporaryDirectory(prefix="ascend-serve-", dir=Path(__file__).parent)',
    ),
    "worker.init_device: take 8 MiB of shared memory": one(
        "src/ascend_plugin/worker.py",
        "        compat.prepare_worker_process()\n",
        "        from multiprocessing.shared_memory import SharedMemory\n\n"
        "        self.taken = SharedMemory(create=True, size=8 << 20)\n"
        "        self.taken.buf[:] = bytes(8 << 20)\n"
        "        compat.prepare_worker_process()\n",
    ),
    "phases: only the device's errors are told": one(
        "src/ascend_plugin/phases.py", "            say_last(_in_a_sentence(error, words))\n", ""
    ),
    "bootstrap.main: leave last_words out": one(
        f"{SERVING}/bootstrap.py", "        if code and last_words.is_file():\n", "        if False:\n"
    ),
    "docker.sh.j2: its tmpfs elsewhere": one(
        "src/ascend_cli/deploy/templates/docker.sh.j2", "--tmpfs /tmp:exec", "--tmpfs /scratch:exec"
    ),
    # ------------------------------------------------------------------ engines, one after another
    "device_errors.toml: leave -8020 out": one(
        "src/ascend_facts/device_errors.toml", 'codes = ["-8005", "-8020"]', 'codes = ["-8005"]'
    ),
    "plugin.ENVIRONMENT_DEFAULTS: leave HCCL_EXEC_TIMEOUT out": one(
        "src/ascend_plugin/__init__.py", '    "HCCL_EXEC_TIMEOUT": "204",\n', ""
    ),
    "plugin.register: let its defaults win": one(
        "src/ascend_plugin/__init__.py",
        "        os.environ.setdefault(name, value)\n",
        "        os.environ[name] = value\n",
    ),
    "plugin.ENVIRONMENT_DEFAULTS: wait a second for a rank, and one chip a thousand times slower": Switch(
        (
            Edit("src/ascend_plugin/__init__.py", '"HCCL_EXEC_TIMEOUT": "204"', '"HCCL_EXEC_TIMEOUT": "1"'),
            Edit(f"{BATTERY}/test_device_faults.py", '"chip": 1, "factor": 10}', '"chip": 1, "factor": 1000}'),
        )
    ),
    "phases.phase: leave methods as they are": one(
        "src/ascend_plugin/phases.py",
        "    def decorate(method: Method) -> Method:\n",
        "    def decorate(method: Method) -> Method:\n        return method\n\n",
        **SHORT,
    ),
    "soak.Soak: random.Random() without the seed": one(
        f"{BATTERY}/soak.py", "self.rng = random.Random(seed)", "self.rng = random.Random()", **SHORT
    ),
    "soak.leave: abort in the front end only": one(
        f"{BATTERY}/soak.py",
        "        self.engine.abort_request([name])\n",
        "        self.engine.output_processor.abort_requests([name], internal=False)\n",
        **SHORT,
    ),
}
