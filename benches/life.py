#!/usr/bin/env python3
"""The life of containers in numbers, against Docker where there is something to compare.

    burst     500 times `run --rm IMAGE sh -c 'exit 9'`, sixteen at a time: 500 nines, all output, nothing left
    idle      1,000 idle containers: starts a second, memory of what watches them (PSS), `ps -a`
    clients   50 containers that write a line a tenth of a second, whose `run`, `logs -f` and `attach` are
              killed (SIGKILL) twenty times: no line lost, none doubled
    flood     1 GB through the log and through `attach`, seconds and memory
    commands  `ps`, `inspect` and `logs` of one container, whole processes

Needs root and busybox; installs nothing. State goes to a directory of its own, containers have no
network, dockerd is this script's own and ends with it. A peer that is absent is named and left out.

    cargo build --release && sudo benches/life.py [PART ...] [--ketch PATH] [--count N] [--work DIR]
"""

import argparse
import concurrent.futures
import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "bench-life"
PARTS = ["burst", "idle", "clients", "flood", "commands"]
FLOOD = 1_000_000_000


def say(text):
    print(text, flush=True)


class Engine:
    """A command line, with what its containers need beside Docker's flags."""

    def __init__(self, name, command, env, watchers):
        self.name, self.command, self.env, self.watchers = name, command, env, watchers

    def run(self, *args, check=True, **more):
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.PIPE)
        done = subprocess.run([*self.command, *args], env=self.env, text=True, check=False, **more)
        if check and done.returncode:
            raise RuntimeError(f"{self.name} {' '.join(args)}: {done.stderr}")
        return done

    def start(self, *args, **more):
        return subprocess.Popen([*self.command, *args], env=self.env, **more)


def ketch(path, work):
    env = dict(os.environ, KETCH_ROOT=f"{work}/root", KETCH_RUN=f"{work}/run", KETCH_NETWORK="none")
    return Engine("ketch", [path], env, lambda: processes("ketch-init"))


class Docker:
    """A dockerd of this script's own."""

    def __init__(self, work):
        self.work, self.process = work, None

    def __enter__(self):
        if not (shutil.which("dockerd") and shutil.which("docker")):
            say("docker is absent and left out")
            return None
        sock = f"unix://{self.work}/docker.sock"
        log = open(f"{self.work}/dockerd.log", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            ["dockerd", "--host", sock, "--data-root", f"{self.work}/docker", "--exec-root",
             f"{self.work}/docker-run", "--pidfile", f"{self.work}/docker.pid", "--bridge=none",
             "--iptables=false"], stdout=log, stderr=log)
        engine = Engine("docker", ["docker", "--host", sock], dict(os.environ),
                        lambda: descendants(self.process.pid))
        for _ in range(300):
            if engine.run("version", check=False).returncode == 0:
                return engine
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        say(f"dockerd does not start ({self.work}/dockerd.log) and is left out")
        return None

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def processes(name):
    """Pids of processes with this executable that are not in a container's pid namespace."""
    found, own = [], os.readlink("/proc/self/ns/pid")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            is_own = os.readlink(f"/proc/{entry}/ns/pid") == own
            if is_own and os.path.basename(os.readlink(f"/proc/{entry}/exe")).startswith(name):
                found.append(int(entry))
        except OSError:
            pass
    return found


def descendants(pid):
    """The daemon, and the shims, which containerd has let go of: by name."""
    return [pid, *processes("containerd"), *processes("containerd-shim")]


def pss(pids):
    """Proportional memory of processes, in MB."""
    total = 0
    for pid in set(pids):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
                total += int(re.search(r"^Pss:\s+(\d+)", file.read(), re.M).group(1))
        except OSError:
            pass
    return total / 1024


def make_image(engines, work):
    archive = f"{work}/image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add("/usr/bin/busybox", arcname="bin/busybox")
        for name in ("sh", "sleep", "cat", "head", "seq", "usleep", "tr", "yes"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    for engine in engines:
        engine.run("import", archive, IMAGE)


# Flags of a container without a network.
NONE = ["--network", "none"]


def burst(engine, count):
    def one(number):
        args = ["run", "--rm", *NONE, IMAGE, "sh", "-c", f"echo out {number}; echo err {number} >&2; exit 9"]
        try:
            done = engine.run(*args, check=False, timeout=120)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 9 and done.stdout == f"out {number}\n" and f"err {number}\n" in done.stderr
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        good = sum(pool.map(one, range(count)))
    took = time.monotonic() - begin
    left = engine.run("ps", "-aq").stdout.split()
    say(f"  {engine.name}: {good} of {count} right in {took:.1f} s ({count / took:.0f}/s), {len(left)} containers left")
    return good == count and not left


def idle(engine, count):
    before = pss(engine.watchers())
    begin = time.monotonic()
    def one(number):
        engine.run("run", "-d", *NONE, "--name", f"idle-{number}", IMAGE, "sleep", "100000")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))
    took = time.monotonic() - begin
    memory = pss(engine.watchers()) - before
    listing = median(lambda: engine.run("ps", "-a"), 5)
    begin = time.monotonic()
    engine.run("rm", "-f", *engine.run("ps", "-aq").stdout.split())
    gone = time.monotonic() - begin
    say(f"  {engine.name}: {count / took:.0f} starts/s, {memory * 1024 / count:.0f} KiB each for what watches "
        f"(PSS, {memory:.0f} MB in all), ps -a {listing * 1000:.0f} ms, rm -f of all {gone:.1f} s")
    return True


def unmount_below(directory):
    """The small executables and the layers of images stay mounted until somebody takes them away."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        points = [line.split()[1] for line in file]
    for point in reversed([point for point in points if point.startswith(f"{directory}/")]):
        subprocess.run(["umount", "-l", point], check=False)


def median(action, rounds):
    times = []
    for _ in range(rounds):
        begin = time.monotonic()
        action()
        times.append(time.monotonic() - begin)
    return statistics.median(times)


def clients(engine, count):
    """Front ends are killed; the containers' logs must have every line once, in order."""
    script = "i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo line $i; usleep 100000; done"
    fronts = []
    for number in range(count):
        fronts.append(engine.start("run", *NONE, "--name", f"writer-{number}", IMAGE, "sh", "-c",
                                   script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    deadline = time.monotonic() + 120
    while len(engine.run("ps", "-q").stdout.split()) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    killed = 0
    for turn in range(20):
        time.sleep(0.3)
        for front in fronts:
            front.send_signal(signal.SIGKILL)
            killed += 1
        for front in fronts:
            front.wait()
        verb = ["logs", "-f"] if turn % 2 else ["attach", "--no-stdin"]
        fronts = [engine.start(*verb, f"writer-{number}", stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL) for number in range(count)]
    for number in range(count):
        engine.run("wait", f"writer-{number}")
    for front in fronts:
        front.wait()
    wanted = [f"line {number}" for number in range(1, 151)]
    wrong = sum(engine.run("logs", f"writer-{number}").stdout.splitlines() != wanted for number in range(count))
    engine.run("rm", "-f", *[f"writer-{number}" for number in range(count)])
    say(f"  {engine.name}: {killed} front ends killed, {wrong} of {count} logs wrong")
    return wrong == 0


def flood(engine, _):
    """As much as `yes` writes; the reader counts."""
    script = f"yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 | head -c {FLOOD}"
    right = True
    for what, options in (("run, to its caller", ["--log-driver", "none"]), ("run, to its log too", [])):
        begin = time.monotonic()
        front = engine.start("run", "--name", "flood", *NONE, *options, IMAGE, "sh", "-c", script,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        right &= drain(engine, front, begin, what)
        if options:
            engine.run("rm", "flood")
    begin = time.monotonic()
    front = engine.start("logs", "flood", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    right &= drain(engine, front, begin, "logs")
    engine.run("rm", "flood")
    return right


def drain(engine, front, begin, what):
    total, peak, looked = 0, 0, begin
    while data := front.stdout.read1(1 << 20):
        total += len(data)
        if time.monotonic() - looked > 0.2:
            looked = time.monotonic()
            peak = max(peak, pss([front.pid, *engine.watchers()]))
    front.wait()
    took = time.monotonic() - begin
    mark = "" if total == FLOOD else f", {total} BYTES INSTEAD OF {FLOOD}"
    say(f"  {engine.name}: {what}: {total / took / 1e6:.0f} MB/s, {peak:.0f} MB (PSS) at most{mark}")
    return total == FLOOD


def commands(engine, rounds):
    engine.run("run", "-d", *NONE, "--name", "one", IMAGE, "sh", "-c", "echo hello; sleep 100000")
    figures = []
    for args in (["ps"], ["inspect", "one"], ["logs", "one"]):
        figures.append(median(lambda args=args: engine.run(*args), rounds))
    engine.run("rm", "-f", "one")
    shown = ", ".join(f"{name} {time * 1000:.1f} ms" for name, time in zip(("ps", "inspect", "logs"), figures))
    say(f"  {engine.name}: {shown} (medians of {rounds})")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--ketch", default=str(ROOT / "target/release/ketch"))
    parser.add_argument("--count", type=int, help="containers, in place of each part's own number")
    parser.add_argument("--work", help="directory for all state (default: a temporary one)")
    parser.add_argument("--without-docker", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("this needs root")
    counts = {"burst": 500, "idle": 1000, "clients": 50, "flood": 0, "commands": 30}
    work = tempfile.mkdtemp(prefix="ketch-bench-life-", dir=args.work)
    good = True
    try:
        with contextlib.ExitStack() as stack:
            peer = None if args.without_docker else stack.enter_context(Docker(work))
            engines = [ketch(args.ketch, work)] + ([peer] if peer else [])
            make_image(engines, work)
            for part in args.parts or PARTS:
                say(f"{part}:")
                for engine in engines:
                    is_right = globals()[part](engine, args.count or counts[part])
                    good &= is_right or engine is not engines[0]
    finally:
        unmount_below(work)
        shutil.rmtree(work, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
