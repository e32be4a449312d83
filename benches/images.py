#!/usr/bin/env python3
"""How long images take: load, pull from a registry on loopback, pull again, push of what is there,
remove - against Docker and podman.

Makes an image of about 300 MB in four layers from this machine's own /usr, and one of 2 GB in eight
(files of the first under other names, with other bytes), puts every engine's store on one fresh ext4
file system, and runs the engines in turn; ketch twice, with layers as directories and as EROFS files.
Needs root; installs nothing; a peer that is absent is named and left out. Prints seconds (best and
median), processor seconds with those of a daemon and its children, which a busy machine changes
less, peak memory (of ketch and podman; of dockerd what it holds most), and ratios.

    cargo build --release && sudo benches/images.py [--rounds 3] [--work DIR] [--images small,large]
    sudo benches/images.py --images tiny --rounds 1     # whether it works: some seconds
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
SOURCES = [
    ["/usr/bin", "/usr/sbin"],
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"],
    ["/usr/share"],
    ["/usr/lib/python3", "/usr/include", "/usr/lib/git-core", "/usr/lib/gcc", "/usr/lib"],
]
# Name: how many layers, and how many bytes of files in each.
IMAGES = {"tiny": (4, 2_000_000), "small": (4, 80_000_000), "large": (8, 250_000_000)}
NAME = "bench/debian"
# What is measured, in the order of the report.
STEPS = ["load", "pull", "pull again", "push again", "rmi"]


def say(text):
    print(text, flush=True)


def layer(number, size):
    """One layer, as tar: files of some directories, in order and again, up to the size. From the
    fifth layer on a part of each file is replaced, so that no two layers share a file."""
    out = io.BytesIO()
    total, turn = 0, 0
    dirs = SOURCES[number % len(SOURCES)]
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        while total < size and turn < 64:
            before = total
            for top in dirs:
                for here, subdirs, files in os.walk(top):
                    subdirs.sort()
                    if total > size:
                        break
                    prefix = f"{number}/{turn}" if number >= len(SOURCES) or turn else ""
                    name_of = lambda path: os.path.join(prefix, path[1:])
                    tar.add(here, arcname=name_of(here), recursive=False)
                    for name in sorted(files):
                        path = os.path.join(here, name)
                        info = tar.gettarinfo(path, arcname=name_of(path))
                        if info is None or info.size > 30_000_000 or total > size:
                            continue
                        if not info.isreg():
                            # A link within a layer may lead to a file that was left out.
                            if info.issym():
                                tar.addfile(info)
                            continue
                        with open(path, "rb") as file:
                            data = bytearray(file.read())
                        if prefix and data:
                            mark = f"{prefix}:{path}".encode()[: len(data)]
                            data[: len(mark)] = mark
                        info.size = len(data)
                        info.type = tarfile.REGTYPE
                        tar.addfile(info, io.BytesIO(data))
                        total += info.size
            turn += 1
            if total == before:
                break
    return out.getvalue()


def make_image(kind, path):
    """An archive that is an OCI layout and a Docker archive together."""
    if path.exists():
        return
    count, size = IMAGES[kind]
    name = f"{NAME}-{kind}"
    say(f"making {path} ...")
    blobs, diff_ids, layers = path.parent / f"{kind}-blobs", [], []
    shutil.rmtree(blobs, ignore_errors=True)
    blobs.mkdir()

    def put(data):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return digest

    for number in range(count):
        tar = layer(number, size)
        packed = gzip.compress(tar, 6, mtime=0)
        diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
        layers.append((put(packed), len(packed)))
        say(f"  layer: {len(tar) / 1e6:.0f} MB, {len(packed) / 1e6:.0f} MB with gzip")
    config = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux", "config": {"Cmd": ["/usr/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }).encode()
    config_digest = put(config)
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": "sha256:" + config_digest, "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": "sha256:" + digest, "size": size} for digest, size in layers],
    }).encode()
    manifest_digest = put(manifest)
    index = {"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": "sha256:" + manifest_digest, "size": len(manifest),
        "annotations": {"io.containerd.image.name": f"docker.io/{name}:latest",
                        "org.opencontainers.image.ref.name": "latest"}}]}
    docker = [{"Config": "blobs/sha256/" + config_digest, "RepoTags": [f"{name}:latest"],
               "Layers": ["blobs/sha256/" + digest for digest, _ in layers]}]
    texts = {
        "index.json": json.dumps(index).encode(),
        "manifest.json": json.dumps(docker).encode(),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }
    part = path.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        for blob in sorted(blobs.iterdir()):
            info = tarfile.TarInfo(f"blobs/sha256/{blob.name}")
            info.size = blob.stat().st_size
            with open(blob, "rb") as file:
                tar.addfile(info, file)
        for text, data in texts.items():
            info = tarfile.TarInfo(text)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    shutil.rmtree(blobs)
    part.rename(path)


@contextlib.contextmanager
def file_system(work):
    """A fresh ext4 with a journal, so that no engine meets another's past. It passes what is written on
    to the disk, without a second cache in between: syncing costs what it costs there."""
    image, mount = work / "disk.img", work / "disk"
    mount.mkdir(exist_ok=True)
    with open(image, "wb") as file:
        file.truncate(40 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    device = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", image], check=True,
                            capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", device, mount], check=True)
        # Whoever writes first would pay for the blocks that the disk image does not have yet.
        with open(mount / "filling", "wb") as file:
            for _ in range(12 << 10):
                file.write(bytes(1 << 20))
            os.fsync(file.fileno())
        (mount / "filling").unlink()
        yield mount
    finally:
        subprocess.run(["umount", mount], check=False)
        subprocess.run(["losetup", "--detach", device], check=False)
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
def registry(disk, archives):
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
        for kind, archive in archives.items():
            subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false",
                            f"oci-archive:{archive}:latest",
                            f"docker://127.0.0.1:{port}/{NAME}-{kind}:latest"], check=True)
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


def peak_of(root):
    """What a daemon and all below it have held most, in kB: the sum over its processes."""
    parents, peaks = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = status.read_text()
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            pid = int(fields["Pid"])
            parents[pid] = int(fields["PPid"])
            peaks[pid] = int(fields.get("VmHWM", "0").split()[0])
    total = 0
    for pid, own in peaks.items():
        above = pid
        while above not in (0, root):
            above = parents.get(above, 0)
        total += own if above == root else 0
    return total


def settle(trash, command, env):
    """Waits until what an earlier removal left is deleted: it would count for the next step."""
    if command[0].name == "store":
        subprocess.run([*command, "empty-trash"], env=env, check=True)
    wait_for(lambda: not trash.exists() or not any(trash.iterdir()), "the deletion of the trash")


def steps_of(engine, kind, archive, host):
    """The commands of one round, in order: what is measured, and the arguments."""
    name = f"{NAME}-{kind}:latest"
    steps = [("load", ["load", "-i", archive]), ("rmi", ["rmi", name])]
    if host:
        tls = ["--tls-verify=false"] if engine == "podman" else []
        ref = f"{host}/{name}"
        # Docker 20.10 has a quiet pull; podman's quiet push prints nothing either.
        steps += [("pull", ["pull", "-q", *tls, ref]),
                  ("pull again", ["pull", "-q", *tls, ref]),
                  ("push again", ["push", "-q", *tls, ref]),
                  ("rmi", ["rmi", ref])]
    return steps


def ketch_of(program, disk, form):
    """One ketch with a store of its own."""
    root = disk / f"ketch-{form}"
    env = {**os.environ, "KETCH_ROOT": f"{root}", "KETCH_RUN": f"{root}-run", "KETCH_LAYERS": form}
    return [program], env


def report(kind, engines, ours, times, spent, memory):
    say(f"\n{kind}: {IMAGES[kind][0]} layers")
    for step in STEPS:
        for name in engines:
            key = (kind, step, name)
            if key not in times:
                continue
            own, cpu = times[key], statistics.median(spent[key])
            line = f"{step:<11}{name:<10}{min(own):8.3f} {statistics.median(own):8.3f} s "
            line += f"{cpu:8.3f} s of processor {memory[key] / 1024:6.0f} MB"
            for mine in ours if name not in ours else []:
                base = (kind, step, mine)
                ratio = statistics.median(own) / statistics.median(times[base])
                work = cpu / max(statistics.median(spent[base]), 0.001)
                line += f"   {mine}: {ratio:.1f}x faster, {work:.1f}x less work"
            say(line)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/ketch-bench"))
    parser.add_argument("--only", help="comma-separated: ketch,docker,podman")
    parser.add_argument("--images", default="small,large", help="of tiny,small,large")
    parser.add_argument("--ketch", type=Path, default=KETCH, help="another program")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("root is needed for mounts and the peers")
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    archives = {kind: work / f"{kind}.tar" for kind in options.images.split(",")}
    for kind, archive in archives.items():
        # In a process of its own: the memory of this one would count for the programs it starts.
        maker = multiprocessing.Process(target=make_image, args=(kind, archive))
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit(f"cannot make {archive}")
    wanted = (options.only or "ketch,docker,podman").split(",")
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(file_system(work))
        has_registry = shutil.which("docker-registry") and shutil.which("skopeo")
        host = stack.enter_context(registry(disk, archives)) if has_registry else None
        if not host:
            say("skipped: pulls, because docker-registry or skopeo is absent")
        engines, daemons, ours = {}, {}, []
        if "ketch" in wanted:
            for form in ["directory", "erofs"]:
                ours.append(form)
                engines[form] = ketch_of(options.ketch, disk, form)
                stack.callback(unmount_layers, disk / f"ketch-{form}-run")
        if "docker" in wanted and shutil.which("dockerd"):
            command, daemon = stack.enter_context(dockerd(disk))
            engines["docker"] = (command, None)
            daemons["docker"] = daemon
        if "podman" in wanted and shutil.which("podman"):
            podman = ["podman", "--root", f"{disk}/podman", "--runroot", f"{disk}/podman-run",
                      "--runtime", "runc", "--storage-driver", "overlay"]
            engines["podman"] = (podman, None)
        for peer in wanted:
            if peer not in engines and peer != "ketch":
                say(f"skipped: {peer} is absent")
        times, spent, memory = {}, {}, {}
        for kind, archive in archives.items():
            for _ in range(options.rounds):
                for name, (command, env) in engines.items():
                    for step, args in steps_of(name, kind, archive, host):
                        if name in ours:
                            settle(disk / f"ketch-{name}/trash", command, env)
                        seconds, cpu, peak = run([*command, *args], env, daemons.get(name))
                        if name in daemons:
                            peak = peak_of(daemons[name])
                        say(f"  {kind} {step} {name} {seconds:.3f} {cpu:.3f}")
                        key = (kind, step, name)
                        spent.setdefault(key, []).append(cpu)
                        times.setdefault(key, []).append(seconds)
                        memory[key] = max(peak, memory.get(key, 0))
            report(kind, engines, ours, times, spent, memory)


def unmount_layers(run_dir):
    """What a store has mounted would keep the file system busy."""
    for dir in ["layers", "exe"]:
        for mount in (run_dir / dir).glob("*"):
            subprocess.run(["umount", "--lazy", mount], check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
