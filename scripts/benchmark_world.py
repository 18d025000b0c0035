"""What the measurements of scripts/benchmark are made on: the machine, a private ZooKeeper, builders and their worlds.

Knows of no figure and no limit.
"""

import collections
import contextlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from world import BUILDERS, IMAGES, Process, Trouble, close, four_letters, free_port, say, zookeeper_command

# Stands in for disk-image-create: writes the files that -o and -t ask for, by the shell's own means, and nothing else.
BUILD_COMMAND = r"""#!/bin/sh
formats= out=
while [ $# -gt 0 ]; do
    case $1 in
    -t) formats=$2 && shift ;;
    -o) out=$2 && shift ;;
    --qemu-img-options) shift ;;
    esac
    shift
done
[ "${BENCHMARK_OUTPUT:-0}" = 0 ] ||
    yes 'a line like those that a package manager writes by the thousand while an image is built' | head -c "$BENCHMARK_OUTPUT"
IFS=,
for format in $formats; do
    echo "an image in the format $format" >"$out.$format"
    echo "d41d8cd98f00b204e9800998ecf8427e  $out.$format" >"$out.$format.md5"
    echo "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  $out.$format" >"$out.$format.sha256"
done
"""


class TooLate(Exception):
    """The time that a subject was given is over."""


# ---- the machine


def busy_jiffies():
    """Time that all processors have spent at work, and in all."""
    fields = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


class Machine:
    """Notes how busy the machine is with other things, before each block, while we do nothing."""

    def __init__(self):
        self.notes = []

    def describe(self):
        cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
        memory = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1]) // 1024
        return f"{os.cpu_count()} cores, {cpu}, {memory} MiB, Linux {os.uname().release}"

    def look(self, block):
        before = busy_jiffies()
        time.sleep(1)
        after = busy_jiffies()
        busy = 100 * (after[0] - before[0]) / max(1, after[1] - before[1])
        load = os.getloadavg()[0]
        self.notes.append({"block": block, "load": round(load, 2), "busy": round(busy)})
        warning = "; WARNING: others use the machine" if load > 1 or busy > 15 else ""
        say(f"{block} (load {load:.2f}, processors {busy:.0f} % busy without us{warning})")


# ---- ZooKeeper


class Certificates:
    """An authority and one certificate for both ends: the original speaks TLS only."""

    def __init__(self, folder):
        folder.mkdir(parents=True)
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "end.pem", folder / "end.key"
        self.store = folder / "store.pem"
        request, names = folder / "end.csr", folder / "names"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split()
        run = lambda *words: subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
        run("req", "-x509", *new_key, "-keyout", folder / "ca.key", "-out", self.ca, "-days", 30, "-subj", "/CN=benchmark")
        run("req", *new_key, "-keyout", self.key, "-out", request, "-subj", "/CN=localhost")
        run(*"x509 -req -CAcreateserial -days 30".split(), "-in", request, "-CA", self.ca, "-CAkey", folder / "ca.key",
            "-extfile", names, "-out", self.cert)
        self.store.write_text(self.key.read_text() + self.cert.read_text())


class ZooKeeper(Process):
    """A private server: as scripts/quickstart has it, with a TLS port besides if there are certificates."""

    def __init__(self, folder, certificates, sync):
        (folder / "data").mkdir(parents=True)
        self.port, self.tls_port = free_port(), free_port()
        settings = [
            "tickTime=2000", f"dataDir={folder}/data", "clientPortAddress=127.0.0.1", f"clientPort={self.port}",
            "admin.enableServer=false", "4lw.commands.whitelist=*", "maxClientCnxns=0",
        ]
        if not sync:
            settings.append("forceSync=no")
        jars = ["zookeeper", "slf4j-simple"]
        if certificates:
            jars += ["netty-handler", "netty-codec", "netty-resolver"]
            settings += [
                "secureClientPortAddress=127.0.0.1", f"secureClientPort={self.tls_port}",
                "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
                f"ssl.keyStore.location={certificates.store}", f"ssl.trustStore.location={certificates.ca}",
                "ssl.clientAuth=need",
            ]
        (folder / "zoo.cfg").write_text("\n".join(settings) + "\n")
        super().__init__(zookeeper_command(folder, jars), folder / "zookeeper.log")

    def wait_until_it_serves(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError):
                if self.ask("srvr").startswith("Zookeeper version"):
                    return
            time.sleep(0.1)
        raise Trouble(f"ZooKeeper does not answer; its log: {self.log}")

    def warm_up(self):
        """A fresh JVM is slow, and would make everybody look so."""
        client = self.client("/warm-up")
        until = time.monotonic() + 4
        while time.monotonic() < until:
            client.create("/a", b"x" * 300, ephemeral=True)
            for _ in range(20):
                client.get("/a")
                client.get_children("/")
            client.set("/a", b"y" * 300)
            client.delete("/a")
        close(client)

    def client(self, chroot):
        client = KazooClient(hosts=f"127.0.0.1:{self.port}")
        client.start()
        client.ensure_path(chroot)
        client.chroot = chroot
        return client

    def ask(self, word, certificates=None):
        """The answer to a four-letter word. The TLS port answers for itself alone."""
        port = self.tls_port if certificates else self.port
        with socket.create_connection(("localhost", port), 5) as connection:
            if certificates:
                context = ssl.create_default_context(cafile=certificates.ca)
                context.load_cert_chain(certificates.cert, certificates.key)
                connection = context.wrap_socket(connection, server_hostname="localhost")
            with connection:
                return four_letters(connection, word)

    def create_rate(self, in_flight, seconds):
        """Znodes a second that a bare loop makes, each as large as a record, with so many on their way at once."""
        client = self.client(f"/create-rate-{in_flight}")
        waiting, made = collections.deque(), 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            while len(waiting) < in_flight:
                waiting.append(client.create_async("/a-", b"x" * 300, sequence=True))
            waiting.popleft().get(timeout=30)
            made += 1
        rate = made / (time.perf_counter() - begun)
        close(client)
        return rate

    def transactions(self):
        line = next(line for line in self.ask("srvr").splitlines() if line.startswith("Zxid"))
        return int(line.split()[1], 16) & 0xFFFFFFFF

    def packets_of(self, session, certificates):
        """Packets from and to the connection of a session."""
        for line in self.ask("cons", certificates).splitlines():
            if f"sid={session:#x}," in line:
                fields = dict(word.split("=", 1) for word in line.split("(", 1)[1].rstrip(")").split(",") if "=" in word)
                return int(fields["recved"]) + int(fields["sent"])
        raise Trouble(f"ZooKeeper knows no connection of the session {session:#x}")


# ---- a world for a builder


class World:
    """A chroot, directories and a configuration, and the builders and clients that run on them."""

    def __init__(self, subject, name, images, providers, retention=7):
        self.subject, self.images, self.providers = subject, images, providers
        self.retention = retention
        self.dir = subject.base / f"{subject.name}-{name}"
        self.chroot = f"/{subject.name}-{name}"
        for folder in ["images", "logs", "elements"]:
            (self.dir / folder).mkdir(parents=True)
        command = self.dir / "build-command"
        command.write_text(BUILD_COMMAND)
        command.chmod(0o755)
        self.zk = subject.zookeeper.client(self.chroot)
        self.config = self.dir / "nodepool.yaml"
        self.edited = {}
        self.config.write_text(self.configuration())

    def edit(self, image, number):
        """Replaces the configuration by one in which a variable of the image has this value."""
        self.edited[image] = number
        new = self.config.with_suffix(".new")
        new.write_text(self.configuration())
        new.rename(self.config)

    def configuration(self):
        command = self.dir / "build-command"
        lines = ["zookeeper-servers:"]
        port = self.subject.zookeeper.tls_port if self.subject.certificates else self.subject.zookeeper.port
        lines += [f"  - host: localhost\n    port: {port}\n    chroot: {self.chroot}"]
        if self.subject.certificates:
            tls = self.subject.certificates
            lines += [f"zookeeper-tls:\n  cert: {tls.cert}\n  key: {tls.key}\n  ca: {tls.ca}"]
        lines += [f"images-dir: {self.dir}/images", f"build-log-dir: {self.dir}/logs", f"build-log-retention: {self.retention}"]
        lines += [f"elements-dir: {self.dir}/elements", "labels: []", "builder-webapp: {port: 0}", "diskimages:"]
        for image, printed in self.images.items():
            lines += [f"  - name: {image}", f"    dib-cmd: {command}", "    formats: [qcow2]", "    elements: [vm]"]
            lines += [f"    env-vars:\n      BENCHMARK_OUTPUT: '{printed}'"]
            if image in self.edited:
                lines += [f"      BENCHMARK_EDIT: '{self.edited[image]}'"]
        lines += ["providers:"]
        for provider in self.providers:
            lines += [f"  - name: {provider}", "    cloud: fake", "    diskimages:"]
            lines += [f"      - name: {image}" for image in self.images]
        return "\n".join(lines) + "\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        close(self.zk)

    def builder(self, *words):
        return Process(
            [str(self.subject.bin / "nodepool-builder"), "-f", "-c", str(self.config), *words],
            self.dir / "builder.log", self.subject.stop_signal, self.subject.environment,
        )

    def client(self, *words):
        """Wall time, processor time and output of a run of `nodepool`."""
        argv = [str(self.subject.bin / "nodepool"), "-c", str(self.config), *words]
        before = os.times()
        begun = time.perf_counter()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.subject.environment)
        wall = time.perf_counter() - begun
        after = os.times()
        if done.returncode:
            raise Trouble(f"{' '.join(argv)} failed: {done.stderr}{done.stdout}")
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return wall * 1000, cpu * 1000, done.stdout

    # -- waiting without polling

    def limit(self, seconds):
        return min(time.monotonic() + seconds, self.subject.deadline)

    def wait(self, daemon, look, limit, what):
        """Calls `look` with a callback for its watches, again after each time that one has fired, until it
        returns something."""
        while True:
            fired = threading.Event()
            found = look(lambda _: fired.set())
            if found is not None:
                return found
            while not fired.wait(min(1, max(0, limit - time.monotonic()))):
                daemon.check()
                if time.monotonic() >= self.subject.deadline:
                    raise TooLate
                if time.monotonic() >= limit:
                    raise Trouble(f"waited in vain for {what}; the daemon's log: {daemon.log}")

    def component(self, daemon, known):
        """The path and the stat of the component that is registered since."""

        def look(watch):
            with contextlib.suppress(NoNodeError):
                for name in self.zk.get_children(BUILDERS, watch=watch):
                    if name not in known:
                        return name, self.zk.get(f"{BUILDERS}/{name}")[1]
                return None
            time.sleep(0.02)
            watch(None)
            return None

        return self.wait(daemon, look, self.limit(60), "a registered component")

    def components(self):
        try:
            return set(self.zk.get_children(BUILDERS))
        except NoNodeError:
            return set()

    def builds(self, image, watch=None):
        try:
            return {name for name in self.zk.get_children(f"{IMAGES}/{image}/builds", watch=watch) if name != "lock"}
        except NoNodeError:
            return set()

    def record(self, path, state, daemon, limit):
        """The stat of a record once it has this state."""

        def look(watch):
            data, stat = self.zk.get(path, watch=watch)
            found = json.loads(data)["state"]
            if found == "failed":
                raise Trouble(f"{path} has failed; the daemon's log: {daemon.log}")
            return stat if found == state else None

        return self.wait(daemon, look, limit, f"{path} to be {state}")

    def ready_upload(self, image, build, provider):
        """The stat of a ready upload, if there is one."""
        parent = f"{IMAGES}/{image}/builds/{build}/providers/{provider}/images"
        with contextlib.suppress(NoNodeError):
            for name in sorted(self.zk.get_children(parent)):
                if name != "lock":
                    data, stat = self.zk.get(f"{parent}/{name}")
                    if json.loads(data)["state"] == "ready":
                        return stat
        return None

    def ready_builds(self, image):
        found = {}
        for build in self.builds(image):
            with contextlib.suppress(NoNodeError):
                data, stat = self.zk.get(f"{IMAGES}/{image}/builds/{build}")
                if json.loads(data)["state"] == "ready":
                    found[build] = stat
        return found

    def converge(self, daemon, seconds):
        """Waits until each image has a ready build and each provider has it. Returns when the last build and
        the last upload became ready."""
        builds, uploads = {}, {}
        wanted = {(image, provider) for image in self.images for provider in self.providers}
        limit = self.limit(seconds)
        while wanted - uploads.keys():
            daemon.check()
            if time.monotonic() >= self.subject.deadline:
                raise TooLate
            if time.monotonic() >= limit:
                raise Trouble(f"not all uploads became ready; the daemon's log: {daemon.log}")
            # The disk says when it is worth to ask ZooKeeper, which must not be kept busy by us.
            time.sleep(0.2)
            if len({path.name[:-39] for path in (self.dir / "images").glob("*.qcow2")}) < len(self.images):
                continue
            # Only as far as the first that is missing: most of them become ready in this order.
            for image in self.images:
                if image not in builds:
                    builds.update({image: pair for pair in list(self.ready_builds(image).items())[:1]})
                if image not in builds:
                    break
                missing = [provider for provider in self.providers if (image, provider) not in uploads]
                for provider in missing:
                    stat = self.ready_upload(image, builds[image][0], provider)
                    if not stat:
                        break
                    uploads[image, provider] = stat
                if missing and (image, self.providers[-1]) not in uploads:
                    break
        last_build = max(stat.mtime for _, stat in builds.values())
        return last_build / 1000, max(stat.mtime for stat in uploads.values()) / 1000

    def request(self, image, daemon, limit):
        """Asks for a build and waits until all providers have it. Times in ms."""
        known = self.builds(image)
        begun = time.perf_counter()
        _, asked = self.zk.create(f"{IMAGES}/{image}/request-build", include_data=True)
        new = self.wait(
            daemon, lambda watch: next(iter(self.builds(image, watch) - known), None), limit, f"a new build of {image}"
        )
        by_client = (time.perf_counter() - begun) * 1000
        path = f"{IMAGES}/{image}/builds/{new}"
        built = self.record(path, "ready", daemon, limit)
        uploaded = []
        for provider in self.providers:
            parent = f"{path}/providers/{provider}/images"

            def look(watch):
                stat = self.ready_upload(image, new, provider)
                if stat is None:
                    # One after the other, so that looking costs little; the times are the server's own.
                    time.sleep(0.02)
                    watch(None)
                return stat

            uploaded.append(self.wait(daemon, look, limit, f"an upload in {parent}").mtime - built.mtime)
        self.wait(
            daemon, lambda watch: self.zk.exists(f"{IMAGES}/{image}/request-build", watch=watch) is None or None, limit,
            f"the request of {image} to be done",
        )
        return {
            "request": built.ctime - asked.ctime, "request-client": by_client,
            "build": built.mtime - built.ctime, "uploads": uploaded,
        }
