"""The measurements of scripts/benchmark, which calls this with a Python that has kazoo.

Times inside ZooKeeper are taken from the znodes' own ctime and mtime, so that this program's slowness is in none of them;
processor time is the daemon's alone, without its children, from the kernel's clock of that process.
"""

import argparse
import json
import pathlib
import random
import shutil
import signal
import statistics
import sys
import time

import benchmark_scale
from benchmark_world import Certificates, Machine, TooLate, World, ZooKeeper
from world import Trouble, cpu_seconds, memory_of, own_environment, say, table

FLEET_IMAGES = [f"image-{n:02}" for n in range(1, 21)]
FLEET_PROVIDERS = [f"fake-{n}" for n in range(1, 6)]
SCALE = benchmark_scale.BLOCKS
BLOCKS = ["start", "requests", "output", "fleet", "idle", "list", "fleet-requests", *SCALE]
IDLE_SECONDS = 60
OUTPUT_BYTES = 200 * 1000 * 1000

# What is compared with a limit: key, words, unit, limit, what was measured of the original earlier.
FIGURES = [
    ("request", "request to `building` record", "ms", 20, 8300),
    ("upload", "`ready` build to `ready` upload", "ms", 50, 10000),
    ("start", "program start to registered component", "ms", 150, 1900),
    ("rss-small", "resident memory idle, 1 image x 1 provider", "MB", 12, 144),
    ("rss-fleet", "resident memory idle, 20 x 5", "MB", 12, 144),
    ("converge", "20 images x 5 providers from nothing", "s", 8, 246),
    ("packets", "idle: ZooKeeper packets, both ways", "/s", 1, 176),
    ("cpu", "idle: of a core", "%", 0.2, 10),
    ("output", "daemon's CPU for a build printing 200 MB", "s", 0.02, 0.73),
    ("list", "nodepool image-list, 100 uploads", "ms", 60, 2000),
]
# What explains the above: key, words, unit.
DETAILS = [
    ("request-client", "request to `building`, by the client's clock", "ms"),
    ("build", "`building` to `ready` build (command and commit)", "ms"),
    ("fleet-request", "request to `building` in the 20 x 5 fleet", "ms"),
    ("fleet-upload", "`ready` build to each of 5 uploads in the fleet", "ms"),
    ("fleet-last-upload", "`ready` build to the last of 5 uploads", "ms"),
    ("converge-builds", "20 x 5: until the last build is ready", "s"),
    ("converge-cpu", "20 x 5: the daemon's CPU", "s"),
    ("converge-transactions", "20 x 5: ZooKeeper transactions", ""),
    ("pss-small", "proportional memory (PSS), 1 x 1", "MB"),
    ("pss-fleet", "proportional memory (PSS), 20 x 5", "MB"),
    ("anonymous-fleet", "anonymous memory, 20 x 5", "MB"),
    ("output-none", "daemon's CPU for a build printing nothing", "s"),
    ("output-removal", "the same with 200 MB, and an old log of 200 MB removed", "s"),
    ("list-cpu", "nodepool image-list: CPU of the client", "ms"),
    ("list-empty", "nodepool image-list, no upload", "ms"),
    ("threads", "threads", ""),
]


# ---- what is measured


class Subject:
    """One implementation, with how often each thing is measured."""

    def __init__(self, name, base, bin, zookeeper, certificates, machine, runs, seconds, stop_signal):
        self.name, self.base, self.bin, self.zookeeper = name, base, bin, zookeeper
        self.certificates, self.machine, self.runs = certificates, machine, runs
        self.stop_signal = stop_signal
        self.deadline = time.monotonic() + seconds
        self.samples = {}
        self.failed = False
        # Where the original's fake driver looks for the cloud that it will not call.
        clouds = base / "clouds.yaml"
        clouds.write_text("clouds: {fake: {auth: {username: a, password: a, project_name: a, auth_url: 'http://localhost'}}}\n")
        self.environment = own_environment() | {"OS_CLIENT_CONFIG_FILE": str(clouds)}

    def note(self, key, value):
        self.samples.setdefault(key, []).append(value)

    def measure(self, blocks):
        """The deadline leaves out what comes after it, and nothing else."""
        small = [block for block in ["start", "requests", "output"] if block in blocks]
        fleet = [block for block in ["fleet", "idle", "list", "fleet-requests"] if block in blocks]
        # The original would take hours.
        scale = [block for block in SCALE if block in blocks and self.runs["scale"]]
        measure_scale = lambda wanted: benchmark_scale.measure(self, wanted)
        for part, wanted in [(self.small, small), (self.fleet, fleet), (measure_scale, scale)]:
            if wanted:
                try:
                    part(wanted)
                except TooLate:
                    say(f"{self.name}: out of time, the rest of this part is left out")
                except Trouble as trouble:
                    self.failed = True
                    say(f"{self.name}: the rest of this part is left out: {trouble}")

    def look(self, block):
        if time.monotonic() >= self.deadline:
            raise TooLate
        self.machine.look(f"{self.name}: {block}")

    # -- one image

    def small(self, blocks):
        with World(self, "small", {"quiet": 0}, ["fake-1"]) as world:
            with world.builder() as daemon:
                world.converge(daemon, 60)
                time.sleep(1)
            if "start" in blocks:
                self.look("program start")
                for _ in range(self.runs["start"]):
                    known = world.components()
                    with world.builder() as daemon:
                        _, stat = world.component(daemon, known)
                        self.note("start", stat.ctime - daemon.begun * 1000)
                        if self.deadline < time.monotonic():
                            raise TooLate
                        time.sleep(0.3)
            with world.builder() as daemon:
                time.sleep(8)
                self.note_memory(daemon, "small")
                if "requests" in blocks:
                    self.look("requests, one at a time")
                    self.requests(world, daemon, "requests")
        if "output" in blocks:
            self.output("output", 7, {"quiet": "output-none", "loud": "output"})
            # With one log kept, each build also has to remove an old log of that size.
            self.output("removal", 1, {"loud": "output-removal"})

    def output(self, name, retention, figures):
        images = {"quiet": 0, "loud": OUTPUT_BYTES}
        with World(self, name, images, ["fake-1"], retention) as world, world.builder() as daemon:
            world.converge(daemon, 120)
            self.look(f"a build that prints 200 MB ({name})")
            # The first build after the one of the start has no log to remove yet.
            for image in figures if retention == 1 else []:
                world.request(image, daemon, world.limit(120))
            for _ in range(self.runs["output"]):
                for image, figure in figures.items():
                    time.sleep(1)
                    before = cpu_seconds(daemon.pid)
                    world.request(image, daemon, world.limit(120))
                    time.sleep(0.5)
                    self.note(figure, cpu_seconds(daemon.pid) - before)
        # These logs are large.
        shutil.rmtree(world.dir / "logs")

    def requests(self, world, daemon, runs):
        images = list(world.images)
        for n in range(self.runs[runs]):
            # A poll of the original's must not find us in step with it.
            time.sleep(random.uniform(*self.runs["pause"]))
            times = world.request(images[n % len(images)], daemon, world.limit(120))
            if runs == "requests":
                self.note("request", times["request"])
                self.note("request-client", times["request-client"])
                self.note("build", times["build"])
                self.note("upload", times["uploads"][0])
            else:
                self.note("fleet-request", times["request"])
                for milliseconds in times["uploads"]:
                    self.note("fleet-upload", milliseconds)
                self.note("fleet-last-upload", max(times["uploads"]))

    def note_memory(self, daemon, kind):
        rss, pss, anonymous, threads = memory_of(daemon.pid)
        self.note(f"rss-{kind}", rss)
        self.note(f"pss-{kind}", pss)
        self.note(f"anonymous-{kind}", anonymous)
        self.samples["threads"] = [threads]

    # -- 20 images at 5 providers

    def fleet(self, blocks):
        self.look("20 images x 5 providers")
        for n in range(self.runs["fleet"]):
            with World(self, f"fleet-{n}", dict.fromkeys(FLEET_IMAGES, 0), FLEET_PROVIDERS) as world:
                if n == 0 and "list" in blocks:
                    for _ in range(min(10, self.runs["list"])):
                        self.note("list-empty", world.client("image-list")[0])
                transactions = self.zookeeper.transactions()
                with world.builder() as daemon:
                    _, component = world.component(daemon, set())
                    last_build, last_upload = world.converge(daemon, 900)
                    self.note("converge-builds", last_build - daemon.begun)
                    self.note("converge", last_upload - daemon.begun)
                    self.note("converge-cpu", cpu_seconds(daemon.pid))
                    self.note("converge-transactions", self.zookeeper.transactions() - transactions)
                    if n + 1 == self.runs["fleet"]:
                        self.in_fleet(blocks, world, daemon, component)

    def in_fleet(self, blocks, world, daemon, component):
        if "idle" in blocks:
            time.sleep(10)
            self.look(f"idle for {IDLE_SECONDS} s")
            self.idle(daemon, component)
        if "list" in blocks:
            self.look("nodepool image-list")
            for _ in range(self.runs["list"]):
                wall, cpu, output = world.client("image-list")
                uploads = sum(line.count("| ready") for line in output.splitlines())
                if uploads != len(world.images) * len(world.providers):
                    raise Trouble(f"image-list shows {uploads} ready uploads")
                self.note("list", wall)
                self.note("list-cpu", cpu)
        if "fleet-requests" in blocks and self.runs["fleet-requests"]:
            self.look("requests in the fleet")
            self.requests(world, daemon, "fleet-requests")

    def idle(self, daemon, component):
        session = component.ephemeralOwner
        before = self.zookeeper.packets_of(session, self.certificates), cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(IDLE_SECONDS)
        after = self.zookeeper.packets_of(session, self.certificates), cpu_seconds(daemon.pid), time.monotonic()
        packets, cpu, seconds = (new - old for new, old in zip(after, before))
        daemon.check()
        self.note("packets", packets / seconds)
        self.note("cpu", 100 * cpu / seconds)
        self.note_memory(daemon, "fleet")


# ---- the table


def number(value, unit):
    if value is None:
        return "-"
    if unit == "ms" or unit == "":
        digits = 1 if unit == "ms" and value < 100 else 0
    elif unit in ("%", "/s"):
        digits = 0 if value >= 100 else 2
    elif unit == "MB":
        digits = 1
    else:
        digits = 3 if value < 1 else 2 if value < 100 else 0
    return f"{value:.{digits}f} {unit}".rstrip()


def spread(samples, unit):
    if not samples:
        return "-"
    if len(samples) == 1:
        return "n=1"
    return f"{number(min(samples), unit)} - {number(max(samples), unit)}, n={len(samples)}"


def report(ours, original):
    """Prints everything. Returns whether all limits are kept."""
    rows, kept = [], True
    for key, words, unit, limit, quoted in FIGURES:
        samples = ours.samples.get(key, [])
        if not samples:
            continue
        median = statistics.median(samples)
        theirs, source = quoted, "earlier"
        if original and original.samples.get(key):
            theirs = statistics.median(original.samples[key])
            source = f"measured, n={len(original.samples[key])}"
        ok = median <= limit
        kept &= ok
        ratio = f"{theirs / median:.0f}x" if median else "-"
        rows.append([
            words, number(median, unit), spread(samples, unit), number(limit, unit), "ok" if ok else "OVER",
            f"[{number(theirs, unit)}] {source}", ratio,
        ])
    if rows:
        table(["figure", "median", "min - max", "limit", "", "original", "ratio"], rows)
    rows = []
    for key, words, unit in DETAILS:
        samples = ours.samples.get(key, [])
        if samples:
            row = [words, number(statistics.median(samples), unit), spread(samples, unit)]
            theirs = original.samples.get(key, []) if original else []
            rows.append(row + [number(statistics.median(theirs), unit) if theirs else "-"])
    if rows:
        print("\nWhat explains it (no limits):")
        table(["detail", "median", "min - max", "original"], rows)
    return benchmark_scale.report(ours.samples, number, spread, table) and kept


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=pathlib.Path, required=True)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--original", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--only", default=",".join(BLOCKS))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--no-sync", action="store_true")
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    chosen.only = chosen.only.split(",")
    unknown = set(chosen.only) - set(BLOCKS)
    if unknown:
        parser.error(f"no such block: {', '.join(sorted(unknown))}")
    return chosen


def main():
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(chosen.base, ignore_errors=True)
    chosen.base.mkdir(parents=True)
    machine = Machine()
    say(machine.describe())
    certificates = Certificates(chosen.base / "tls") if chosen.original else None
    ours_runs = {
        "start": 20, "requests": 40, "output": 5, "fleet": 3, "list": 20, "fleet-requests": 30, "pause": (0.2, 0.5),
        "scale": True,
    }
    original_runs = {
        "start": 3, "requests": 6, "output": 1, "fleet": 1, "list": 5, "fleet-requests": 0, "pause": (0.5, 9),
        "scale": False,
    }
    original = None
    with ZooKeeper(chosen.base / "zookeeper", certificates, not chosen.no_sync) as zookeeper:
        zookeeper.wait_until_it_serves()
        zookeeper.warm_up()
        common = dict(base=chosen.base, zookeeper=zookeeper, machine=machine)
        ours = Subject("rust", bin=chosen.bin, certificates=None, runs=ours_runs, seconds=3600,
                       stop_signal=signal.SIGTERM, **common)
        ours.measure(chosen.only)
        if chosen.original:
            # It ends in order on SIGINT only.
            original = Subject("original", bin=chosen.original, certificates=certificates, runs=original_runs,
                               seconds=chosen.seconds, stop_signal=signal.SIGINT, **common)
            original.measure(chosen.only)
    print()
    kept = report(ours, original)
    print(f"\n{machine.describe()}")
    print("load average before each block: " + ", ".join(f"{note['load']:.2f}" for note in machine.notes))
    if any(note["load"] > 1 or note["busy"] > 15 for note in machine.notes):
        print("WARNING: others used the machine; times are worse than they would be on a quiet one")
    if chosen.json:
        plain = lambda key: key if isinstance(key, str) else " ".join(key)
        subjects = {
            subject.name: {plain(key): values for key, values in subject.samples.items()}
            for subject in [ours, original] if subject
        }
        limits = {key: limit for key, _, _, limit, _ in FIGURES}
        text = json.dumps({"machine": machine.describe(), "load": machine.notes, "limits": limits, **subjects}, indent=1)
        chosen.json.write_text(text + "\n")
    if not chosen.keep:
        shutil.rmtree(chosen.base, ignore_errors=True)
    return 0 if kept and not ours.failed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Trouble as trouble:
        sys.exit(str(trouble))
