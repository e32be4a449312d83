#!/usr/bin/env python3
"""How long images take: load, pull from a registry on loopback, remove - against Docker and podman.

Makes an image of about 300 MB in four layers from this machine's own /usr, puts every engine's
store on one fresh ext4 file system, and runs the engines in turn. Needs root; installs nothing; a
peer that is absent is named and left out. Prints seconds (best and median), processor seconds with
those of a daemon and its children, which a busy machine changes less, and ratios of both.

    cargo build --release && sudo benches/images.py [--rounds 3] [--work DIR]
    cargo build --release -p image --example store && \
        sudo benches/images.py --ketch target/release/examples/store     # the store alone
"""

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KETCH = ROOT / "target/release/ketch"
LAYER_BYTES = 80_000_000
SOURCES = [
    ["/usr/bin", "/usr/sbin"],
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"],
    ["/usr/share"],
    ["/usr/lib/python3", "/usr/include", "/usr/lib/git-core", "/usr/lib/gcc", "/usr/lib"],
]
NAME = "bench/debian"


def say(text):
    print(text, flush=True)


def layer(dirs, taken):
    """One layer, as tar: files of these directories, in order, up to the size."""
    out = io.BytesIO()
    total = 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for top in dirs:
            for here, subdirs, files in os.walk(top):
                subdirs.sort()
                if total > LAYER_BYTES:
                    break
                tar.add(here, arcname=here[1:], recursive=False)
                for name in sorted(files):
                    if total > LAYER_BYTES:
                        break
                    path = os.path.join(here, name)
                    size = os.lstat(path).st_size
                    if size < 30_000_000 and path not in taken:
                        taken.add(path)
                        tar.add(path, arcname=path[1:], recursive=False)
                        total += size
    return out.getvalue()


def make_image(path):
    """An archive that is an OCI layout and a Docker archive together."""
    if path.exists():
        return
    say(f"making {path} ...")
    blobs, diff_ids, layers = {}, [], []
    taken = set()
    for dirs in SOURCES:
        tar = layer(dirs, taken)
        packed = gzip.compress(tar, 6, mtime=0)
        digest = hashlib.sha256(packed).hexdigest()
        blobs[digest] = packed
        diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
        layers.append((digest, len(packed)))
        say(f"  layer: {len(tar) / 1e6:.0f} MB, {len(packed) / 1e6:.0f} MB with gzip")
    config = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux", "config": {"Cmd": ["/usr/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }).encode()
    config_digest = hashlib.sha256(config).hexdigest()
    blobs[config_digest] = config
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": "sha256:" + config_digest, "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": "sha256:" + digest, "size": size} for digest, size in layers],
    }).encode()
    manifest_digest = hashlib.sha256(manifest).hexdigest()
    blobs[manifest_digest] = manifest
    index = {"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": "sha256:" + manifest_digest, "size": len(manifest),
        "annotations": {"io.containerd.image.name": f"docker.io/{NAME}:latest",
                        "org.opencontainers.image.ref.name": "latest"}}]}
    docker = [{"Config": "blobs/sha256/" + config_digest, "RepoTags": [f"{NAME}:latest"],
               "Layers": ["blobs/sha256/" + digest for digest, _ in layers]}]
    files = {f"blobs/sha256/{digest}": data for digest, data in sorted(blobs.items())}
    files["index.json"] = json.dumps(index).encode()
    files["manifest.json"] = json.dumps(docker).encode()
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    part = path.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    part.rename(path)


@contextlib.contextmanager
def file_system(work):
    """A fresh ext4 with a journal, so that no engine meets another's past."""
    image, mount = work / "disk.img", work / "disk"
    mount.mkdir(exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(12 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=False)
        image.unlink()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(probe, what):
    for _ in range(300):
        if probe():
            return
        time.sleep(0.1)
    sys.exit(f"{what} does not start")


@contextlib.contextmanager
def process(args, **kwargs):
    child = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def registry(disk, archive):
    port = free_port()
    config = disk / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {disk}/registry}}}}\n")
    with process(["docker-registry", "serve", config]):
        def up():
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0
        wait_for(up, "docker-registry")
        subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false",
                        f"oci-archive:{archive}:latest", f"docker://127.0.0.1:{port}/{NAME}:latest"],
                       check=True)
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def dockerd(disk):
    sock = f"unix://{disk}/docker.sock"
    args = ["dockerd", f"--data-root={disk}/docker", f"--exec-root={disk}/docker-run",
            f"--pidfile={disk}/docker.pid", f"--host={sock}", "--bridge=none", "--iptables=false"]
    with process(args) as child:
        docker = ["docker", "-H", sock]
        wait_for(lambda: subprocess.run([*docker, "version"], capture_output=True).returncode == 0,
                 "dockerd")
        yield docker, child.pid


def daemon_seconds(root):
    """Processor seconds of a process and all below it, the ended ones included."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid = int(stat.parent.name)
            fields = stat.read_text().rpartition(")")[2].split()
            parents[pid] = int(fields[1])
            seconds[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total = 0
    for pid, own in seconds.items():
        above = pid
        while above not in (0, root):
            above = parents.get(above, 0)
        total += own if above == root else 0
    return total


def run(args, env=None, daemon=None):
    """Seconds, processor seconds and peak memory (kB) of a program that must succeed."""
    os.sync()
    before = daemon_seconds(daemon) if daemon else 0
    began = time.monotonic()
    child = subprocess.Popen(args, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    if child.returncode:
        sys.exit(f"{' '.join(map(str, args))} failed:\n{output.decode()}")
    spent = usage.ru_utime + usage.ru_stime
    if daemon:
        spent += daemon_seconds(daemon) - before
    return seconds, spent, usage.ru_maxrss


def settle(trash, command, env):
    """Waits until what an earlier removal left is deleted: it would count for the next step."""
    if command[0].name == "store":
        subprocess.run([*command, "empty-trash"], env=env, check=True)
    wait_for(lambda: not trash.exists() or not any(trash.iterdir()), "the deletion of the trash")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/ketch-bench"))
    parser.add_argument("--only", help="comma-separated: ketch,docker,podman")
    parser.add_argument("--ketch", type=Path, default=KETCH,
                        help="another program: target/release/examples/store is the store alone")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("root is needed for mounts and the peers")
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    archive = work / "image.tar"
    # In a process of its own: the memory of this one would count for the programs it starts.
    maker = multiprocessing.Process(target=make_image, args=(archive,))
    maker.start()
    maker.join()
    wanted = (options.only or "ketch,docker,podman").split(",")
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(file_system(work))
        has_registry = shutil.which("docker-registry") and shutil.which("skopeo")
        host = stack.enter_context(registry(disk, archive)) if has_registry else None
        if not host:
            say("skipped: pulls, because docker-registry or skopeo is absent")
        engines, daemons = {}, {}
        if "ketch" in wanted:
            env = {**os.environ, "KETCH_ROOT": f"{disk}/ketch", "KETCH_RUN": f"{disk}/ketch-run"}
            engines["ketch"] = ([options.ketch], env)
        if "docker" in wanted and shutil.which("dockerd"):
            command, daemon = stack.enter_context(dockerd(disk))
            engines["docker"] = (command, None)
            daemons["docker"] = daemon
        if "podman" in wanted and shutil.which("podman"):
            podman = ["podman", "--root", f"{disk}/podman", "--runroot", f"{disk}/podman-run",
                      "--runtime", "runc", "--storage-driver", "overlay"]
            engines["podman"] = (podman, None)
        for peer in wanted:
            if peer not in engines:
                say(f"skipped: {peer} is absent")
        times, spent, memory = {}, {}, {}
        for _ in range(options.rounds):
            for name, (command, env) in engines.items():
                steps = [("load", ["load", "-i", archive]), ("rmi", ["rmi", f"{NAME}:latest"])]
                if host:
                    tls = ["--tls-verify=false"] if name == "podman" else []
                    ref = f"{host}/{NAME}:latest"
                    steps += [("pull", ["pull", "-q", *tls, ref]),
                              ("pull again", ["pull", "-q", *tls, ref]), ("rmi", ["rmi", ref])]
                for step, args in steps:
                    if name == "ketch":
                        settle(disk / "ketch/trash", command, env)
                    seconds, cpu, peak = run([*command, *args], env, daemons.get(name))
                    say(f"  {step} {name} {seconds:.3f} {cpu:.3f}")
                    spent.setdefault((step, name), []).append(cpu)
                    times.setdefault((step, name), []).append(seconds)
                    memory[(step, name)] = max(peak, memory.get((step, name), 0))
        for step in ["load", "pull", "pull again", "rmi"]:
            for name in engines:
                if (step, name) not in times:
                    continue
                own = times[(step, name)]
                cpu = statistics.median(spent[(step, name)])
                line = f"{step:<11}{name:<8}{min(own):7.3f} {statistics.median(own):7.3f} s "
                line += f"{cpu:7.3f} s of processor"
                if name != "ketch" and "ketch" in engines:
                    ratio = statistics.median(own) / statistics.median(times[(step, "ketch")])
                    work = cpu / max(statistics.median(spent[(step, "ketch")]), 0.001)
                    line += f"   ketch: {ratio:.1f} times as fast, {work:.1f} times less work"
                else:
                    line += f"   peak memory {memory[(step, name)] / 1024:.0f} MB"
                say(line)


if __name__ == "__main__":
    main()
