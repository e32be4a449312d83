#!/usr/bin/env python3
"""What a bridge network and a published port cost at a start, and networks to create and remove.

Runs as root, in a network namespace of its own, so that nothing of the machine's network is touched:
    python3 benches/network.py target/release/ketch [--docker]
Commands are interleaved, so that a change of the machine's speed hits all of them. With --docker a
dockerd is started in the same namespace, on a directory of its own, and ended again."""
import os, shutil, signal, statistics, subprocess, sys, tempfile, time

RUNS, WARM_UP, NETWORKS = 30, 3, 100
BUSYBOX = "/usr/bin/busybox"


def main():
    if os.environ.get("KETCH_BENCH_INSIDE") != "1":
        env = dict(os.environ, KETCH_BENCH_INSIDE="1")
        os.execvpe("unshare", ["unshare", "-n", sys.executable, *sys.argv], env)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    ketch = os.path.abspath(sys.argv[1])
    work = tempfile.mkdtemp(prefix="ketch-bench-")
    os.environ.update(KETCH_ROOT=f"{work}/root", KETCH_RUN=f"{work}/run")
    docker = None
    # Ended by a signal it clears up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        archive = image(work)
        quiet([ketch, "import", "--change", 'ENTRYPOINT ["/busybox"]', archive, "box"])
        run = [ketch, "run", "--rm"]
        cases = {
            "ketch none": run + ["--network", "none", "box", "true"],
            "ketch bridge": run + ["--network", "bridge", "box", "true"],
            "ketch bridge, one port": run + ["--network", "bridge", "-p", "8080:80", "box", "true"],
        }
        quiet([ketch, "network", "create", "named"])
        cases["ketch network with names"] = run + ["--network", "named", "box", "true"]
        if "--docker" in sys.argv:
            docker = start_docker(work)
            base = ["docker", "-H", f"unix://{work}/docker.sock"]
            quiet(base + ["import", "--change", 'ENTRYPOINT ["/busybox"]', archive, "box"])
            run = base + ["run", "--rm"]
            cases["docker none"] = run + ["--network", "none", "box", "true"]
            cases["docker bridge, one port"] = run + ["-p", "8081:80", "box", "true"]
        report(measure(cases))
        networks("ketch", [ketch])
        if docker:
            networks("docker", base)
    finally:
        if docker:
            docker.send_signal(signal.SIGTERM)
            docker.wait(30)
        for mount in sorted(mounts(work), reverse=True):
            subprocess.run(["umount", "-l", mount])
        shutil.rmtree(work, ignore_errors=True)


def image(work):
    tree = f"{work}/tree"
    os.makedirs(tree)
    shutil.copy(BUSYBOX, tree)
    subprocess.run(["tar", "-C", tree, "-cf", f"{work}/box.tar", "."], check=True)
    return f"{work}/box.tar"


def mounts(below):
    with open("/proc/self/mounts") as lines:
        return [line.split()[1] for line in lines if line.split()[1].startswith(below)]


def start_docker(work):
    log = open(f"{work}/docker.log", "w")
    command = ["dockerd", "--data-root", f"{work}/docker", "--exec-root", f"{work}/docker-exec",
               "--pidfile", f"{work}/docker.pid", "-H", f"unix://{work}/docker.sock"]
    daemon = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(300):
        if subprocess.run(["docker", "-H", f"unix://{work}/docker.sock", "version"],
                          capture_output=True).returncode == 0:
            return daemon
        time.sleep(0.1)
    sys.exit(f"dockerd does not answer: {open(f'{work}/docker.log').read()[-500:]}")


def quiet(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")


def timed(command):
    before = time.perf_counter()
    quiet(command)
    return (time.perf_counter() - before) * 1e3


def measure(cases):
    times = {name: [] for name in cases}
    for round_number in range(WARM_UP + RUNS):
        for name, command in cases.items():
            taken = timed(command)
            if round_number >= WARM_UP:
                times[name].append(taken)
    return times


def report(times):
    print(f"{'medians of ' + str(RUNS):<30}{'median ms':>12}{'mean ms':>12}{'p95 ms':>12}")
    for name, taken in times.items():
        taken.sort()
        p95 = taken[len(taken) * 95 // 100]
        print(f"{name:<30}{statistics.median(taken):>12.2f}{statistics.mean(taken):>12.2f}{p95:>12.2f}")


def networks(name, base):
    # Docker's pools end at about thirty networks, so each gets its subnet.
    before = time.perf_counter()
    for number in range(NETWORKS):
        quiet(base + ["network", "create", "--subnet", f"10.77.{number}.0/24", f"b{number}"])
    made = time.perf_counter()
    for number in range(NETWORKS):
        quiet(base + ["network", "rm", f"b{number}"])
    removed = time.perf_counter()
    print(f"{name}: {NETWORKS} networks made in {made - before:.2f} s, removed in {removed - made:.2f} s")


main()
