#!/usr/bin/env python3
"""Numbers of wasm containers, as ratios against the `wasmtime` command in the same run.

Usage: wasm.py [hello] [http] [memory] [cpython FILE]     (default: hello http memory)

Variables: KETCH (a release build), WASMTIME (default: wasmtime), KETCH_ROOT, KETCH_RUN.
`http` needs wrk. What is absent is skipped, and said.
"""

import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KETCH = os.environ.get("KETCH", "ketch")
WASMTIME = os.environ.get("WASMTIME", "wasmtime")
BUILT = Path(__file__).parent.parent / "fixtures/guests/built"
RUNS = 50


def ketch(*args, check=True):
    done = subprocess.run([KETCH, *args], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        sys.exit(f"ketch {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout.strip()


def milliseconds(argv):
    begun = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, check=False)
    spent = (time.perf_counter() - begun) * 1000
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)}: {done.stderr.decode().strip()}")
    return spent


def compare(name, rows):
    """Runs the commands in turn, so that a busy moment falls on all of them."""
    times = {label: [] for label, _ in rows}
    for label, argv in rows:
        milliseconds(argv)
    for _ in range(RUNS):
        for label, argv in rows:
            times[label].append(milliseconds(argv))
    base = statistics.median(times[rows[0][0]])
    for label, _ in rows:
        spent = sorted(times[label])
        median = statistics.median(spent)
        print(f"{name:10} {label:42} median {median:7.2f} ms  mean {statistics.mean(spent):7.2f}"
              f"  p95 {spent[int(len(spent) * 0.95)]:7.2f}  ratio {median / base:.2f}")


def precompiled(module, directory):
    target = str(Path(directory) / (Path(module).name + ".cwasm"))
    subprocess.run([WASMTIME, "compile", str(module), "-o", target], check=True)
    return target


def hello(directory, module=BUILT / "hello.wasm", name="hello"):
    ketch("wasm", "wrap", str(module), f"bench-{name}")
    compare(name, [
        ("wasmtime run (precompiled)",
         [WASMTIME, "run", "--allow-precompiled", precompiled(module, directory)]),
        ("ketch run --rm --network none",
         [KETCH, "run", "--rm", "--network", "none", f"bench-{name}"]),
    ])


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(3000):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    sys.exit(f"nobody listens at port {port}")


def wrk(label, port, base=None):
    wait_for(port)
    argv = ["wrk", "-t1", "-c16", "--latency", f"http://127.0.0.1:{port}/"]
    subprocess.run(argv + ["-d1s"], capture_output=True, check=True)
    out = subprocess.run(argv + ["-d5s"], capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    p99 = re.search(r"99%\s+(\S+)", out).group(1)
    errors = "".join(re.findall(r"Non-2xx.*|Socket errors.*", out))
    ratio = f"  ratio {rate / base:.2f}" if base else ""
    print(f"http       {label:42} {rate:9.0f} requests/s  p99 {p99}{ratio} {errors}")
    return rate


def http(_directory):
    if not shutil.which("wrk"):
        print("http       skipped: wrk is absent")
        return
    module = str(BUILT / "http.wasm")
    ketch("wasm", "wrap", module, "bench-http")
    port = free_port()
    peer = subprocess.Popen(
        [WASMTIME, "serve", "-Scli", f"--addr=127.0.0.1:{port}", module],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        base = wrk("wasmtime serve", port)
    finally:
        peer.terminate()
        peer.wait()
    for label, more in [("ketch, a fresh instance a request", []),
                        ("ketch --wasm-http-reuse 1000", ["--wasm-http-reuse", "1000"])]:
        port = free_port()
        made = ketch("run", "-d", "--network", "host", "--wasm-http-port", str(port), *more,
                     "bench-http")
        try:
            wrk(label, port, base)
        finally:
            ketch("rm", "--force", made)


def private_kib(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.M))


def memory(_directory):
    count = int(os.environ.get("CONTAINERS", "50"))
    ketch("wasm", "wrap", str(BUILT / "sleep.wasm"), "bench-sleep")
    made = [ketch("run", "-d", "bench-sleep", "600") for _ in range(count)]
    try:
        time.sleep(1)
        sums = {"ketch-init": 0, "ketch-wasm-host": 0}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name = os.path.basename(os.readlink(process / "exe")).split(".")[0]
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            for known in sums:
                if name.startswith(known) or words.startswith(known.encode()):
                    sums[known] += private_kib(process.name)
        total = sum(sums.values())
        parts = ", ".join(f"{name} {kib / count:.0f} KiB" for name, kib in sums.items())
        print(f"memory     {count} idle containers: {total / count:.0f} KiB private each ({parts})")
    finally:
        for container in made:
            ketch("rm", "--force", container, check=False)


def main():
    wanted = sys.argv[1:] or ["hello", "http", "memory"]
    with tempfile.TemporaryDirectory() as directory:
        while wanted:
            name = wanted.pop(0)
            if name == "cpython":
                hello(directory, Path(wanted.pop(0)), "cpython")
            else:
                {"hello": hello, "http": http, "memory": memory}[name](directory)


if __name__ == "__main__":
    main()
