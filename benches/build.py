#!/usr/bin/env python3
"""How long builds take: against `docker build` without BuildKit, and `buildah`/`podman build`.

One multi-stage Dockerfile of about 30 lines on a small base image with busybox, built cold, with nothing
changed, and with one source line changed; and a context of many files of which one changes. Needs root
and a static busybox; installs nothing; a peer that is absent is named and left out. Prints milliseconds
(best and median) and ratios.

    cargo build --release && sudo benches/build.py [--rounds 5] [--files 5000] [--work DIR]
"""

import argparse
import contextlib
import os
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
BUSYBOX = Path("/usr/bin/busybox")
APPLETS = "sh cat echo mkdir touch wc sort cp ls true".split()

DOCKERFILE = """\
FROM bench-base AS tools
ENV TOOLS=/opt/tools
RUN mkdir -p /opt/tools
COPY tools/ /opt/tools/
RUN cat /opt/tools/a /opt/tools/b >/opt/tools/all

FROM bench-base AS deps
WORKDIR /deps
COPY deps.txt .
RUN sort deps.txt >deps.sorted
RUN mkdir lib && cp deps.sorted lib/one
RUN cp lib/one lib/two

FROM bench-base AS compile
WORKDIR /src
COPY --from=deps /deps/lib ./lib
COPY --from=tools /opt/tools/all ./tool
COPY src/ ./
RUN cat lib/one lib/two tool main.txt >program
RUN wc program >size

FROM bench-base
LABEL org.example.name=bench
ENV MODE=production
WORKDIR /app
COPY --from=compile /src/program ./
COPY --from=compile /src/size ./
COPY config/ ./config/
RUN touch ready
EXPOSE 8080
USER 1000
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "cat program"]
"""

FILES = "FROM bench-base\nCOPY . /data/\n"


def without_runs(dockerfile):
    """The same without what programs take: files that RUN would have made come from the context."""
    lines = [line for line in dockerfile.splitlines() if not line.startswith("RUN ")]
    text = "\n".join(lines) + "\n"
    for made, given in [
        ("--from=deps /deps/lib", "config"),
        ("--from=tools /opt/tools/all", "deps.txt"),
        ("--from=compile /src/program", "--from=compile /src/main.txt"),
        ("--from=compile /src/size", "--from=compile /src/tool"),
    ]:
        assert made in text, made
        text = text.replace(made, given)
    return text


def say(text):
    print(text, flush=True)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_base(work):
    """The base image as an archive of its files."""
    path = work / "base.tar"
    with tarfile.open(path, "w") as tar:
        for name in APPLETS:
            info = tarfile.TarInfo(f"bin/{name}")
            info.size = BUSYBOX.stat().st_size
            info.mode = 0o755
            with BUSYBOX.open("rb") as file:
                tar.addfile(info, file)
    return path


def make_context(work):
    context = work / "context"
    write(context / "Dockerfile", DOCKERFILE)
    write(context / "Dockerfile.plain", without_runs(DOCKERFILE))
    for name in "ab":
        write(context / "tools" / name, name * 1000)
    write(context / "deps.txt", "\n".join(f"dep-{n}" for n in range(500)))
    write(context / "src/main.txt", "line 0\n")
    write(context / "config/app.conf", "x=1\n")
    return context


def make_files(work, count):
    context = work / "files"
    write(context / "Dockerfile", FILES)
    body = os.urandom(20_000)
    for number in range(count):
        path = context / f"d{number // 500}/f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body + str(number).encode())
    return context


class Engine:
    """A builder: its name, and how it is called."""

    def __init__(self, name, build, load, env=None):
        self.name, self.build_args, self.load_args, self.env = name, build, load, env or {}

    def call(self, args):
        env = {**os.environ, **self.env}
        done = subprocess.run(args, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(args)}: {done.stderr[-2000:]}")

    def load(self, base):
        self.call([word.replace("@", str(base)) for word in self.load_args])

    def build(self, context, fresh=False, file=None):
        extra = ["--no-cache"] if fresh else []
        if file:
            extra += ["-f", str(context / file)]
        args = [*self.build_args, *extra, "-t", "bench-out", str(context)]
        begin = time.monotonic()
        self.call(args)
        return (time.monotonic() - begin) * 1000


@contextlib.contextmanager
def docker(work):
    """A daemon of our own, without BuildKit and without networks."""
    if not shutil.which("dockerd") or not shutil.which("docker"):
        say("docker is absent")
        yield None
        return
    socket = work / "docker.sock"
    args = ["dockerd", "--data-root", str(work / "docker"), "--exec-root", str(work / "docker-run"), "-H", f"unix://{socket}",
            "--bridge=none", "--iptables=false", "--pidfile", str(work / "docker.pid")]
    with open(work / "docker.log", "w") as log:
        daemon = subprocess.Popen(args, stdout=log, stderr=log)
    try:
        env = {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}
        for _ in range(300):
            probe = subprocess.run(["docker", "version"], env={**os.environ, **env}, capture_output=True)
            if probe.returncode == 0:
                break
            time.sleep(0.1)
        else:
            say("dockerd does not start: see " + str(work / "docker.log"))
            yield None
            return
        yield Engine("docker", ["docker", "build", "--network=none"], ["docker", "import", "@", "bench-base"], env)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)


def podman(work, program):
    if not shutil.which(program):
        say(f"{program} is absent")
        return None
    storage = ["--root", str(work / program), "--runroot", str(work / f"{program}-run"), "--storage-driver=overlay"]
    if program == "buildah":
        # What podman imports is in the same store.
        storage = ["--root", str(work / "podman"), "--runroot", str(work / "podman-run"), "--storage-driver=overlay"]
        return Engine(program, [program, *storage, "build", "--layers", "--network=host", "--isolation=chroot"],
                      ["podman", *storage, "import", "@", "bench-base"])
    if program == "podman":
        return Engine(program, [program, *storage, "build", "--layers", "--network=host", "--isolation=chroot"],
                      [program, *storage, "import", "@", "bench-base"])
    return None


WHAT = ["cold", "cold without RUN", "cached", "changed"]
MANY = ["one of many files changed", "many files, none changed"]


def measure(engine, context, rounds):
    """Cold, unchanged, one line changed."""
    source = context / "src/main.txt"
    times = {"cold": [], "cold without RUN": [], "cached": [], "changed": []}
    for number in range(rounds):
        write(source, f"line {time.time_ns()} {number}\n")
        times["cold"].append(engine.build(context, fresh=True))
        times["cold without RUN"].append(engine.build(context, fresh=True, file="Dockerfile.plain"))
        # Without its cache flag it fills the cache.
        engine.build(context)
        times["cached"].append(engine.build(context))
        write(source, f"line {time.time_ns()} {number}\n")
        times["changed"].append(engine.build(context))
    return times


def measure_files(engine, context, rounds):
    engine.build(context)
    times = []
    for number in range(rounds):
        write(context / "d0/f0", f"changed {time.time_ns()} {number}")
        times.append(engine.build(context))
    return {MANY[0]: times, MANY[1]: [engine.build(context) for _ in range(rounds)]}


def measure_cached(engine, context, rounds):
    """Unchanged only: the rounds of the builder that is looked at, without what warms its files."""
    engine.build(context)
    return {"cached": [engine.build(context) for _ in range(rounds)]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ketch", default=ROOT / "target/release/ketch", type=Path)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--files", default=50_000, type=int, help="0 leaves the large context out")
    parser.add_argument("--files-rounds", default=2, type=int)
    parser.add_argument("--only", choices=["cached", "files"], help="one part alone")
    parser.add_argument("--engines", default="ketch,docker,podman,buildah")
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root")
    if not BUSYBOX.exists():
        sys.exit("needs a static busybox")
    work = Path(tempfile.mkdtemp(prefix="bench-build-", dir=args.work))
    try:
        base, context = make_base(work), make_context(work)
        files = make_files(work, args.files) if args.files and args.only != "cached" else None
        wanted = args.engines.split(",")
        env = {"KETCH_ROOT": str(work / "root"), "KETCH_RUN": str(work / "run"), "KETCH_NETWORK": "none"}
        peer = docker(work) if "docker" in wanted else contextlib.nullcontext()
        with peer as docker_engine:
            engines = [
                Engine("ketch", [str(args.ketch), "build", "-q"], [str(args.ketch), "import", "@", "bench-base"], env),
                docker_engine,
                podman(work, "podman"),
                podman(work, "buildah"),
            ]
            results = {}
            for engine in engines:
                if engine is None or engine.name not in wanted:
                    continue
                try:
                    engine.load(base)
                    times = results.setdefault(engine.name, {})
                    if args.only == "cached":
                        times.update(measure_cached(engine, context, args.rounds))
                    elif args.only is None:
                        times.update(measure(engine, context, args.rounds))
                    if files:
                        times.update(measure_files(engine, files, args.files_rounds))
                except RuntimeError as error:
                    say(f"{engine.name} is left out: {error}")
                    results.pop(engine.name, None)
        report(results)
    finally:
        for mount in [*(work / "run/exe").glob("*"), *(work / "run/layers").glob("*")]:
            subprocess.run(["umount", "-l", str(mount)], capture_output=True)
        subprocess.run(["umount", "-l", str(work / "podman/overlay")], capture_output=True)
        shutil.rmtree(work, ignore_errors=True)


def report(results):
    own = results.get("ketch", {})
    for what in WHAT + MANY:
        measured = {name: times[what] for name, times in results.items() if what in times}
        if measured:
            say(f"\n{what}")
        for name, times in measured.items():
            best, median = min(times), statistics.median(times)
            ratio = f"   {median / statistics.median(own[what]):6.1f}x" if what in own and name != "ketch" else ""
            say(f"  {name:8} best {best:8.1f} ms   median {median:8.1f} ms{ratio}")


if __name__ == "__main__":
    main()
