#!/usr/bin/env python3
"""Runs the prebuilt programs of WebAssembly/wasi-testsuite through `ketch run`.

Usage: wasi_testsuite.py SUITE [TEST...]

SUITE is a checkout of https://github.com/WebAssembly/wasi-testsuite, branch
prod/testsuite-base; it is not part of this repository. The suite's own runner
does the work and needs Python 3.12 and the package `requests`; this file is the
adapter that it loads, and the program that starts it. Every program becomes an
image (its directory and the module), so that what is tested is a container.

Variables: KETCH (the program, default: ketch), KETCH_ROOT, KETCH_RUN.
"""

import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

KETCH = os.environ.get("KETCH", "ketch")


def get_name():
    return "ketch"


def get_version():
    output = subprocess.run([KETCH, "version"], capture_output=True, text=True, check=True)
    return output.stdout.split()[-1]


def get_wasi_versions():
    return ["wasm32-wasip1", "wasm32-wasip3"]


def get_wasi_worlds():
    return ["wasi:cli/command", "wasi:http/service"]


def get_timeout_seconds():
    return 20


def image(module, root):
    """Imports the test's directory and its module as one image and compiles it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if root:
            for path in sorted(Path(root).rglob("*")):
                tar.add(path, arcname=str(path.relative_to(root)), recursive=False)
        tar.add(module, arcname="test.wasm")
    name = "suite-" + hashlib.sha256(str(module).encode()).hexdigest()[:12]
    subprocess.run(
        [KETCH, "import", "--change", 'ENTRYPOINT ["/test.wasm"]', "-", name],
        input=archive.getvalue(), capture_output=True, check=True)
    made = subprocess.run([KETCH, "create", name], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        subprocess.run([KETCH, "rm", made.stdout.strip()], capture_output=True, check=False)
    else:
        print(f"{module}: {made.stderr.strip()}", file=sys.stderr)
    return name


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def compute_argv(test_path, args_env_root, proposals, wasi_world, wasi_version):
    args, env, root = args_env_root
    network = "host" if proposals or "sockets" in Path(test_path).name else "none"
    argv = [KETCH, "run", "--rm", "-i", "--network", network]
    # Preview 1's tests without a directory expect that descriptor 3 is none.
    if not root:
        argv += ["--wasm-no-files"]
    if wasi_world == "wasi:http/service":
        argv += ["--wasm-http-port", str(free_port())]
    for key, value in env.items():
        argv += ["--env", f"{key}={value}"]
    return argv + [image(test_path, root)] + list(args)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    suite = Path(sys.argv[1])
    sys.path.insert(0, str(suite / "test-runner"))
    from wasi_test_runner.harness import run_all_tests
    from wasi_test_runner.filters import TestFilter, UnsupportedWasiTestExcludeFilter
    from wasi_test_runner.reporters.console import ConsoleTestReporter
    from wasi_test_runner.runtime_adapter import RuntimeAdapter

    wanted = sys.argv[2:]

    class Wanted(TestFilter):
        """Only the tests that were named."""

        def should_skip(self, meta, test_name, config):
            return (test_name not in wanted, "not asked for")

    dirs = sorted(str(p.parent) for p in suite.glob("tests/*/testsuite/*/manifest.json"))
    runtimes = [RuntimeAdapter(os.path.abspath(__file__))]
    filters = [UnsupportedWasiTestExcludeFilter()]
    if wanted:
        filters.append(Wanted())
    sys.exit(run_all_tests(runtimes, dirs, [ConsoleTestReporter(False, verbose=bool(wanted))], filters))


# The suite's runner starts its adapters without arguments, to see whether they print anything.
if __name__ == "__main__" and len(sys.argv) > 1 and sys.argv[1] != "--version":
    main()
