#!/usr/bin/env python3
"""Starts of one bundle by `ketch oci run`, crun and runc, interleaved in one run.

    cargo build --release && python3 benches/oci.py [ROUNDS] [--ketch COMMAND]

Bare, and with the filter that `ketch oci spec` of Docker's profile would have (pass a seccomp object
as JSON with --seccomp FILE); then 200 starts in parallel. Medians in milliseconds, and ratios to
crun. Nothing is installed; a peer that is absent is named and left out. crun refuses the hybrid
hierarchy, so it runs in a mount namespace without it.
"""

import argparse
import concurrent.futures
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

PARALLEL = 200
CLONE_NEWNS = 0x20000


def bundle(ketch, seccomp):
    """A bundle of busybox that ends at once."""
    directory = tempfile.mkdtemp(prefix="ketch-bench-oci-")
    os.makedirs(f"{directory}/rootfs/bin")
    shutil.copy("/usr/bin/busybox", f"{directory}/rootfs/bin/true")
    subprocess.run([*ketch, "spec", "--bundle", directory], check=True)
    with open(f"{directory}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    # crun 1.8 reads no later version.
    config["ociVersion"] = "1.0.2"
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/true"]
    if seccomp:
        with open(seccomp, encoding="utf-8") as file:
            config["linux"]["seccomp"] = json.load(file)
    with open(f"{directory}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    return directory


def peers(ketch):
    found = {"ketch": (ketch, False)}
    for name in ("crun", "runc"):
        if path := shutil.which(name):
            found[name] = ([path], name == "crun" and os.path.isdir("/sys/fs/cgroup/unified"))
        else:
            print(f"{name} is absent and left out")
    return found


def timed(command, directory, name):
    line = [*command, "run", "--bundle", directory, name]
    begin = time.perf_counter()
    subprocess.run(line, stdin=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begin) * 1000


def without_unified(function, *arguments):
    """Calls the function in a child whose mount namespace has no unified hierarchy."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # The parent's clean-up is not the child's.
        try:
            ctypes.CDLL(None).unshare(CLONE_NEWNS)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=True)
            os.write(writer, json.dumps(function(*arguments)).encode())
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    if os.waitpid(child, 0)[1]:
        sys.exit("a run without the unified hierarchy failed")
    return json.loads(text)


def single(command, hidden, directory, name):
    if hidden:
        return without_unified(timed, command, directory, name)
    return timed(command, directory, name)


def together(command, directory, prefix):
    """Starts for each second, PARALLEL of them at once."""
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        jobs = [pool.submit(timed, command, directory, f"{prefix}-{n}") for n in range(PARALLEL)]
        for job in jobs:
            job.result()
    return PARALLEL / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", nargs="?", type=int, default=50)
    parser.add_argument("--ketch", default="target/release/ketch oci")
    parser.add_argument("--seccomp")
    options = parser.parse_args()
    ketch = options.ketch.split()
    found = peers(ketch)
    directory = bundle(ketch, options.seccomp)
    try:
        times = {name: [] for name in found}
        for number in range(options.rounds):
            for name, (command, hidden) in found.items():
                times[name].append(single(command, hidden, directory, f"bench-{number}"))
        base = statistics.median(times.get("crun", times["ketch"]))
        print(f"{'':8}{'median':>9}{'p95':>9}{'to crun':>9}")
        for name, values in times.items():
            middle, high = statistics.median(values), sorted(values)[int(len(values) * 0.95) - 1]
            print(f"{name:8}{middle:9.1f}{high:9.1f}{middle / base:9.2f}")
        for name, (command, hidden) in found.items():
            arguments = (command, directory, f"bench-{name}")
            rate = without_unified(together, *arguments) if hidden else together(*arguments)
            print(f"{name:8}{rate:9.0f} starts a second, {PARALLEL} at once")
            left = subprocess.run([*command, "list", "-q"], capture_output=True, check=True)
            if b"bench-" in left.stdout:
                sys.exit(f"{name} has left containers: {left.stdout.decode()}")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
