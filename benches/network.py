#!/usr/bin/env python3
"""Networks: what a bridge and a published port cost at a start, throughput between containers and from
the host, answers for names, ten thousand published ports, networks to create and remove.

Runs as root, in a network namespace of its own, so that nothing of the machine's network is touched:
    python3 benches/network.py target/release/ketch [--docker] [--quick] [start throughput names ports networks]
Commands are interleaved, so that a change of the machine's speed hits all of them. With --docker a
dockerd is started in the same namespace, on a directory of its own, and ended again. --quick does each
once or twice: to see that it works. Without words at the end everything is measured."""
import gc, json, os, shutil, signal, socket, statistics, struct, subprocess, sys, tempfile, time

QUICK = "--quick" in sys.argv
RUNS, WARM_UP, NETWORKS = (2, 1, 5) if QUICK else (30, 3, 100)
ROUNDS, SECONDS = (1, 1) if QUICK else (5, 5)
QUERIES, RATE = (1000, 5000) if QUICK else (50_000, 5000)
PARTS = [word for word in sys.argv[2:] if not word.startswith("--")]
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
    engines = {"ketch": [ketch]}
    try:
        if "--docker" in sys.argv:
            docker = start_docker(work)
            engines["docker"] = ["docker", "-H", f"unix://{work}/docker.sock"]
        archive = image(work)
        for base in engines.values():
            quiet(base + ["import", "--change", 'ENTRYPOINT ["/busybox"]', archive, "box"])
            quiet(base + ["network", "create", "--subnet", f"10.66.{len(base)}.0/24", "named"])
        for name, part in [("start", start), ("throughput", throughput), ("names", names),
                           ("ports", ports), ("networks", networks)]:
            if not PARTS or name in PARTS:
                part(engines, work)
    finally:
        if docker:
            docker.send_signal(signal.SIGTERM)
            docker.wait(30)
        for base in ([ketch],):
            left = subprocess.run(base + ["ps", "-aq"], capture_output=True, text=True).stdout.split()
            for container in left:
                subprocess.run(base + ["rm", "-f", container], capture_output=True)
        for mount in sorted(mounts(work), reverse=True):
            subprocess.run(["umount", "-l", mount])
        shutil.rmtree(work, ignore_errors=True)


def image(work):
    tree = f"{work}/tree"
    os.makedirs(tree)
    shutil.copy(BUSYBOX, tree)
    if shutil.which("iperf3"):
        add_program(tree, shutil.which("iperf3"))
    subprocess.run(["tar", "-C", tree, "-cf", f"{work}/box.tar", "."], check=True)
    return f"{work}/box.tar"


def add_program(tree, program):
    """A dynamic program of the host with its libraries, and a place for its temporary files."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    for path in [program, *files]:
        target = tree + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(path, target)
    os.makedirs(f"{tree}/tmp", exist_ok=True)


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


def start(engines, _work):
    cases = {}
    for name, base in engines.items():
        run = base + ["run", "--rm"]
        port = {"ketch": "8080:80", "docker": "8081:80"}[name]
        cases[f"{name} none"] = run + ["--network", "none", "box", "true"]
        cases[f"{name} bridge"] = run + ["--network", "bridge", "box", "true"]
        cases[f"{name} bridge, one port"] = run + ["--network", "bridge", "-p", port, "box", "true"]
        cases[f"{name} network with names"] = run + ["--network", "named", "box", "true"]
    times = measure(cases)
    report(times)
    median = {name: statistics.median(taken) for name, taken in times.items()}
    extra = median["ketch bridge, one port"] - median["ketch none"]
    print(f"ketch: bridge and one port cost {extra:.2f} ms more than none")
    if "docker" in engines:
        ratio = median["docker bridge, one port"] / median["ketch bridge, one port"]
        print(f"docker / ketch, bridge and one port: {ratio:.1f}")


def detached(base, name, *command):
    """A running container: its init and its address on its first network."""
    quiet(base + ["run", "-d", "--name", name, "--network", "named", *command])
    text = subprocess.run(base + ["inspect", name], capture_output=True, text=True, check=True).stdout
    found = json.loads(text)[0]
    address = next(iter(found["NetworkSettings"]["Networks"].values()))["IPAddress"]
    return found["State"]["Pid"], address


def throughput(engines, _work):
    iperf = shutil.which("iperf3")
    if not iperf:
        return print("throughput: skipped, there is no iperf3")
    rates = {}
    program = ["--entrypoint", iperf, "box"]
    servers = {name: detached(base, "server", *program, "-s")[1] for name, base in engines.items()}
    time.sleep(1)
    for _ in range(ROUNDS):
        for name, base in engines.items():
            client = ["-c", servers[name], "-t", str(SECONDS), "-J"]
            between = base + ["run", "--rm", "--network", "named", *program, *client]
            for way, command in [("container to container", between), ("host to container", [iperf, *client])]:
                text = subprocess.run(command, capture_output=True, text=True)
                if text.returncode:
                    sys.exit(f"{' '.join(command)}: {text.stdout[-300:]} {text.stderr[-300:]}")
                rate = json.loads(text.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9
                rates.setdefault(f"{name}, {way}", []).append(rate)
    for base in engines.values():
        quiet(base + ["rm", "-f", "server"])
    for name, all_rates in rates.items():
        print(f"throughput {name}: median {statistics.median(all_rates):.2f} Gbit/s of {ROUNDS}")


def names(engines, _work):
    for name, base in engines.items():
        detached(base, "target", "box", "sleep", "600")
        pid, _ = detached(base, "asker", "box", "sleep", "600")
        command = ["nsenter", "-t", str(pid), "-n", sys.executable, os.path.abspath(__file__), "--ask"]
        taken = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        taken.sort()
        p99, middle = taken[len(taken) * 99 // 100], statistics.median(taken)
        print(f"names {name}: {len(taken)} questions at {RATE}/s: median {middle:.3f} ms, p99 {p99:.3f} ms, "
              f"slowest {taken[-1]:.3f} ms")
        quiet(base + ["rm", "-f", "target", "asker"])


def ask():
    """Questions at a steady rate from inside a container. Each is timed from the moment at which it
    should have been sent, so that a slow answer is not hidden by what waits behind it. The asker goes
    before everything else on its processor: what is measured is not its own waiting."""
    gc.disable()
    os.sched_setaffinity(0, [0])
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    question = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + b"\x06target\x00" + struct.pack(">2H", 1, 1)
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.connect(("127.0.0.11", 53))
    asker.settimeout(5)
    taken, begin = [], time.perf_counter() + 0.05
    for number in range(QUERIES):
        due = begin + number / RATE
        # Who never sleeps is stopped by the kernel now and then (sched_rt_runtime_us).
        time.sleep(max(due - time.perf_counter() - 6e-5, 0))
        while time.perf_counter() < due:
            pass
        asker.send(question)
        answer = asker.recv(512)
        taken.append((time.perf_counter() - due) * 1e3)
        if answer[7] != 1:
            sys.exit(f"no address in the answer: {answer!r}")
    print(json.dumps(taken))


def ports(engines, _work):
    # Docker starts a process for each: minutes.
    base = engines["ketch"]
    taken = []
    for _ in range(ROUNDS):
        taken.append(timed(base + ["run", "-d", "--name", "many", "--network", "bridge",
                                   "-p", "0.0.0.0:20000-29999:20000-29999/udp", "box", "sleep", "600"]))
        quiet(base + ["rm", "-f", "many"])
    print(f"ketch: 10,000 UDP ports published in {statistics.median(taken):.0f} ms (median of {ROUNDS})")


def networks(engines, _work):
    totals = {}
    for name, base in engines.items():
        # Docker's pools end at about thirty networks, so each gets its subnet.
        before = time.perf_counter()
        for number in range(NETWORKS):
            quiet(base + ["network", "create", "--subnet", f"10.77.{number}.0/24", f"b{number}"])
        made = time.perf_counter()
        for number in range(NETWORKS):
            quiet(base + ["network", "rm", f"b{number}"])
        removed = time.perf_counter()
        totals[name] = removed - before
        print(f"{name}: {NETWORKS} networks made in {made - before:.2f} s, removed in {removed - made:.2f} s")
    if "docker" in totals:
        print(f"docker / ketch, networks: {totals['docker'] / totals['ketch']:.1f}")


if "--ask" in sys.argv:
    ask()
else:
    main()
