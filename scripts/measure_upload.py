"""The measurements of scripts/measure-upload, which calls this with a Python that has kazoo."""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

from benchmark_world import Machine, ZooKeeper
from world import Process, Trouble, free_port, own_environment, say, table

SOURCES = pathlib.Path(__file__).resolve().parent.parent / "tests/support/openstack"
# Ours divided by the official client's: no slower, a tenth of its processor time and memory.
LIMITS = {"wall": 1.0, "cpu": 0.1, "peak": 0.1}
DAEMON_GROWTH_MB = 4
# Stands in for disk-image-create: takes the image that is there.
BUILD_COMMAND = """#!/bin/sh
while [ $# -gt 0 ]; do
    [ "$1" != -o ] || out=$2
    shift
done
cp --reflink=auto {image} "$out.qcow2"
echo "{md5}  $out.qcow2" >"$out.qcow2.md5"
echo "{sha256}  $out.qcow2" >"$out.qcow2.sha256"
"""


class OpenStack:
    """A Keystone and a Glance, as the tests have them."""

    def __init__(self, folder, peers, stack):
        self.folder = folder
        folder.mkdir(parents=True)
        self.keystone, self.glance = free_port(), free_port()
        subprocess.run(
            ["/usr/bin/python3", "-B", str(SOURCES / "place.py"), str(folder), str(peers / "template"),
             f"KEYSTONE_PORT={self.keystone}", f"GLANCE_PORT={self.glance}"],
            check=True,
        )
        environment = {**own_environment(), "PYTHONWARNINGS": "ignore"}
        self.processes = []
        for name in ["keystone", "glance"]:
            argv = [str(peers / "venv/bin/uwsgi"), "--ini", str(folder / f"{name}.ini")]
            process = Process(argv, folder / f"{name}.log", env=environment)
            stack.append(process)
            self.processes.append(process)
        deadline = time.monotonic() + 120
        while True:
            for process in self.processes:
                process.check()
            try:
                self.images()
                return
            except (OSError, KeyError) as error:
                if time.monotonic() > deadline:
                    raise Trouble(f"Keystone and Glance do not answer: {error}; their logs are in {folder}") from None
            time.sleep(0.2)

    def call(self, method, port, path, token=None, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("X-Auth-Token", token)
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(request, data, timeout=60) as answer:
            text = answer.read()
            return answer.headers, json.loads(text) if text else None

    def token(self):
        default = {"id": "default"}
        user = {"name": "demo", "password": "demo-password", "domain": default}
        scope = {"project": {"name": "demo", "domain": default}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        return self.call("POST", self.keystone, "/v3/auth/tokens", body=body)[0]["X-Subject-Token"]

    def images(self):
        return self.call("GET", self.glance, "/v2/images", self.token())[1]["images"]

    def take_away(self, digests):
        """Deletes all images, which must be one that has arrived."""
        images = self.images()
        if [(image["status"], image["checksum"]) for image in images] != [("active", digests["md5"])]:
            raise Trouble(f"not the image that was uploaded: {images}")
        self.call("DELETE", self.glance, f"/v2/images/{images[0]['id']}", self.token())


def make_image(path, megabytes):
    """A qcow2 image of random bytes, in the page cache: the disk is not what is measured. Returns its digests."""
    raw = path.with_suffix(".raw")
    with open(raw, "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)], check=True)
    raw.unlink()
    digests = {}
    for kind in ["md5", "sha256"]:
        with open(path, "rb") as file:
            digests[kind] = hashlib.file_digest(file, kind).hexdigest()
    return digests


def status_kb(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def measured(argv, environment, log):
    """Wall and processor time in seconds, and the peak of resident memory in MB, of a program."""
    with open(log, "ab") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        peak = 0
        own_line = pathlib.Path("/proc/self/cmdline").read_bytes()
        # The kernel's own peak, which it forgets with the process: that of wait4 has our memory in it, too, from
        # before the program was loaded.
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes() != own_line:
                    peak = max(peak, status_kb(process.pid, "VmHWM"))
            time.sleep(0.005)
        wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Trouble(f"{argv[0]} has ended with {process.returncode}; its output: {log}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": peak / 1024}


def compare(services, options, image, digests, missed):
    size = image.stat().st_size
    environment = {**own_environment(), "OS_CLIENT_CONFIG_FILE": str(services.folder / "clouds.yaml"),
                   "PYTHONWARNINGS": "ignore"}
    subjects = {
        "ours": [str(options.bin / "examples/upload"), "demo", "ours", str(image), "qcow2", digests["md5"],
                 digests["sha256"]],
        "official": [str(options.peers / "venv/bin/openstack"), "--os-cloud", "demo", "image", "create", "--file",
                     str(image), "--disk-format", "qcow2", "--container-format", "bare", "official"],
    }
    samples = {name: [] for name in subjects}
    # One more, whose figures do not count: modules are compiled, services are warm.
    for run in range(options.runs + 1):
        for name, argv in subjects.items():
            figures = measured(argv, environment, options.base / f"{name}.log")
            services.take_away(digests)
            if run:
                samples[name].append(figures)
    rows = []
    for key, words, unit in [("wall", "wall time", "s"), ("cpu", "processor time", "s"), ("peak", "peak memory", "MB")]:
        ours, official = ([sample[key] for sample in samples[name]] for name in subjects)
        show = lambda values: f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f}) {unit}"
        ratio = statistics.median(ours) / statistics.median(official)
        if ratio > LIMITS[key]:
            missed.append(f"{words}, {size >> 20} MB: {ratio:.3f} of the official client's, limit {LIMITS[key]}")
        rows.append([words, show(ours), show(official), f"{ratio:.3f}", f"{LIMITS[key]}"])
    rate = lambda name: f"{size / 1e6 / statistics.median([sample['wall'] for sample in samples[name]]):.0f} MB/s"
    rows.append(["throughput", rate("ours"), rate("official"), "", ""])
    header = [f"{size >> 20} MB, median (range) of {options.runs}", "our driver", "openstack image create", "ratio", "limit"]
    table(header, rows)


def daemon(services, options, image, digests, missed, stack):
    """How much a builder grows while it uploads."""
    folder = options.base / "builder"
    for name in ["images", "logs", "elements"]:
        (folder / name).mkdir(parents=True)
    zookeeper = ZooKeeper(options.base / "zookeeper", None, True)
    stack.append(zookeeper)
    zookeeper.wait_until_it_serves()
    command = folder / "build-command"
    command.write_text(BUILD_COMMAND.format(image=image, **digests))
    command.chmod(0o755)
    config = folder / "nodepool.yaml"

    def write(diskimages):
        new = folder / "nodepool.yaml.new"
        new.write_text(
            f"zookeeper-servers: [{{host: localhost, port: {zookeeper.port}}}]\n"
            f"images-dir: {folder}/images\nbuild-log-dir: {folder}/logs\nelements-dir: {folder}/elements\n"
            "builder-webapp: {port: 0}\n"
            f"diskimages: [{{name: large, dib-cmd: {command}, formats: [qcow2], elements: [vm]}}]\n"
            f"providers: [{{name: demo, cloud: demo, diskimages: [{diskimages}]}}]\n"
        )
        new.rename(config)

    write("")
    environment = {**own_environment(), "OS_CLIENT_CONFIG_FILE": str(services.folder / "clouds.yaml")}
    builder = Process(
        [str(options.bin / "nodepool-builder"), "-f", "-c", str(config)], folder / "builder.log", env=environment
    )
    stack.append(builder)

    def wait(what, condition):
        deadline = time.monotonic() + 300
        while not condition():
            builder.check()
            if time.monotonic() > deadline:
                raise Trouble(f"waited in vain for {what}; the builder's log: {builder.log}")
            time.sleep(0.05)

    wait("a build", lambda: "the build is ready" in builder.log.read_text())
    # Until it has nothing more to do.
    time.sleep(3)
    idle = status_kb(builder.pid, "VmRSS")
    peak, over = [idle], threading.Event()

    def watch():
        while not over.wait(0.005):
            peak[0] = max(peak[0], status_kb(builder.pid, "VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        write("{name: large}")
        wait("an upload", lambda: "the upload is ready" in builder.log.read_text())
    finally:
        over.set()
        watcher.join()
    services.take_away(digests)
    growth = (peak[0] - idle) / 1024
    print(f"nodepool-builder: {idle / 1024:.1f} MB resident when idle, at most {peak[0] / 1024:.1f} MB while it uploads"
          f" {image.stat().st_size >> 20} MB: {growth:.1f} MB more, limit {DAEMON_GROWTH_MB} MB")
    if growth > DAEMON_GROWTH_MB:
        missed.append(f"the builder grows by {growth:.1f} MB, limit {DAEMON_GROWTH_MB} MB")


def main():
    parser = argparse.ArgumentParser()
    for name in ["base", "bin", "peers"]:
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--no-daemon", action="store_true")
    options = parser.parse_args()
    options.base.mkdir(parents=True)
    stack, missed = [], []
    try:
        machine = Machine()
        say(machine.describe())
        machine.look("Keystone, Glance and images")
        services = OpenStack(options.base / "openstack", options.peers, stack)
        sizes = [options.megabytes] + ([1024] if options.large else [])
        for megabytes in sizes:
            image = options.base / f"{megabytes}.qcow2"
            digests = make_image(image, megabytes)
            machine.look(f"uploads of {megabytes} MB")
            compare(services, options, image, digests, missed)
        if not options.no_daemon:
            image = options.base / "1024.qcow2"
            digests = make_image(image, 1024)
            machine.look("a builder that uploads 1 GB")
            daemon(services, options, image, digests, missed, stack)
    except Trouble as trouble:
        sys.exit(f"measure-upload: {trouble}")
    finally:
        for process in reversed(stack):
            process.__exit__()
    # Logs stay; images take room.
    for image in options.base.glob("*.qcow2"):
        image.unlink()
    shutil.rmtree(options.base / "openstack/store", ignore_errors=True)
    shutil.rmtree(options.base / "builder/images", ignore_errors=True)
    for line in missed:
        print(f"MISSED: {line}")
    return 1 if missed else 0


sys.exit(main())
