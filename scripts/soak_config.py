"""What the builders of scripts/soak are configured with, how it is edited while they run, and the stores of the two local
providers, one of which can be made to fail.

Knows of no running builder.
"""

import contextlib
import os
import pathlib
import subprocess
import threading
import time

from world import Trouble

PROVIDERS = {"local-good": "qcow2", "local-bad": "raw", "fake": "qcow2"}
CALM_REBUILD_AGE = 86400
BUILD_TIMEOUT = 5

# What is peculiar to each image: settings of the image, then variables for tests/support/fake-dib.sh.
IMAGES_OF_FLEET = {
    "quick": ({}, {"FAKE_DIB_SLEEP": "0.1"}),
    "middling": ({}, {"FAKE_DIB_SLEEP": "0.8"}),
    "slow": ({}, {"FAKE_DIB_SLEEP": "3"}),
    "family": ({}, {"FAKE_DIB_SLEEP": "1", "FAKE_DIB_CHILD": "@DIR@/child-of-family"}),
    "stubborn": ({}, {"FAKE_DIB_SLEEP": "2", "FAKE_DIB_IGNORE_TERM": "1"}),
    "large": ({}, {"FAKE_DIB_SLEEP": "0.5", "FAKE_DIB_SIZE_MB": "3"}),
    "talkative": ({}, {"FAKE_DIB_SLEEP": "0.3", "FAKE_DIB_OUTPUT_MB": "3"}),
    "passing": ({"delete-after-upload": "true"}, {"FAKE_DIB_SLEEP": "0.4"}),
}
# Its files go while its record stays.
WITHOUT_FILES = {"passing"}


def probe_image(builder):
    """The image that only this builder has, and that nothing but the probes ask for."""
    return f"probe-{builder}"


class Configuration:
    """The files of the builders, which differ in their directories and in the probe's image only."""

    def __init__(self, base, builders, servers, stores):
        self.base, self.servers, self.stores = base, servers, stores
        self.lock = threading.RLock()
        self.broken = dict.fromkeys(builders, False)
        self.missing_images, self.missing_providers = set(), set()
        self.rebuild_age = dict.fromkeys(IMAGES_OF_FLEET, CALM_REBUILD_AGE)
        self.extra = {image: {} for image in IMAGES_OF_FLEET}
        self.fake = {}
        # Part of every entry, so that a new one makes a builder forget what has failed before.
        self.epoch = 0

    def file(self, builder):
        return self.base / builder / "nodepool.yaml"

    def edit(self, change):
        """Calls `change` with this, then writes the files."""
        with self.lock:
            change(self)
            self.write()

    def write(self):
        with self.lock:
            for builder, broken in self.broken.items():
                if not broken:
                    self.replace(builder, self.text(builder))

    def replace(self, builder, text):
        new = self.file(builder).with_suffix(".new")
        new.write_text(text)
        new.rename(self.file(builder))

    def break_file(self, builder):
        """Leaves a file that is no YAML, as a careless editor does."""
        with self.lock:
            self.broken[builder] = True
            self.replace(builder, self.text(builder)[:400] + "\n  - {name: [unfinished\n")

    def repair(self, builder):
        with self.lock:
            self.broken[builder] = False
            self.replace(builder, self.text(builder))

    def images(self):
        return [image for image in IMAGES_OF_FLEET if image not in self.missing_images]

    def providers(self):
        return [provider for provider in PROVIDERS if provider not in self.missing_providers]

    def reset(self):
        """As it was at first, but for the epoch."""
        with self.lock:
            self.missing_images, self.missing_providers, self.fake = set(), set(), {}
            self.rebuild_age = dict.fromkeys(IMAGES_OF_FLEET, CALM_REBUILD_AGE)
            self.extra = {image: {} for image in IMAGES_OF_FLEET}
            self.broken = dict.fromkeys(self.broken, False)
            self.epoch += 1
            self.write()

    def text(self, builder):
        own = self.base / builder
        lines = ["zookeeper-servers:"]
        lines += [f"  - {{host: 127.0.0.1, port: {server.port}, chroot: /soak}}" for server in self.servers]
        lines += [
            f"zookeeper-timeout: {SESSION_SECONDS[builder]:.1f}", f"images-dir: {own}/images", "builder-webapp: {port: 0}",
            f"build-log-dir: {own}/logs", "build-log-retention: 3", f"elements-dir: {self.base}/elements", "labels: []",
            "diskimages:",
        ]
        for image in self.images():
            settings, variables = IMAGES_OF_FLEET[image]
            settings = settings | {"rebuild-age": self.rebuild_age[image]}
            variables = variables | self.extra[image] | {"SOAK_EPOCH": self.epoch}
            lines += self.image_entry(image, settings, variables)
        lines += self.image_entry(probe_image(builder), {"rebuild-age": CALM_REBUILD_AGE, "formats": "[raw]"}, {})
        lines += ["providers:"]
        for provider in self.providers():
            lines += self.provider_entry(provider)
        return "\n".join(lines) + "\n"

    def image_entry(self, image, settings, variables):
        lines = [f"  - name: {image}", f"    dib-cmd: {self.base}/build-command", f"    build-timeout: {BUILD_TIMEOUT}"]
        lines += ["    elements: [vm]"] + [f"    {key}: {value}" for key, value in settings.items()]
        if variables:
            lines += ["    env-vars:"]
            lines += [f"      {key}: '{value}'".replace("@DIR@", str(self.base)) for key, value in variables.items()]
        return lines

    def provider_entry(self, provider):
        lines = [f"  - name: {provider}", f"    image-format: {PROVIDERS[provider]}"]
        lines += [f"    image-name-format: '{{image_name}}-e{self.epoch}-{{timestamp}}'"]
        if provider == "fake":
            lines += ["    driver: fake", "    cloud: fake"]
            lines += ["    fake:"] + [f"      {key}: {value}" for key, value in ({"upload-delay": 0.2} | self.fake).items()]
        else:
            lines += ["    driver: local", f"    path: {self.stores.path(provider)}"]
        return lines + ["    diskimages:"] + [f"      - name: {image}" for image in self.images()]


SESSION_SECONDS = {"a": 5, "b": 4}


class Stores:
    """The directories of the local providers. That of `local-bad` is a small file system where we may mount one, and a
    plain directory where not."""

    def __init__(self, base):
        self.base = base / "stores"
        self.volume = self.base / "volume"
        self.volume.mkdir(parents=True)
        self.path("local-good").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "soak", str(self.volume)]
        self.mounted = os.getuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        self.path("local-bad").mkdir()

    def path(self, provider):
        return self.volume / "bad" if provider == "local-bad" else self.base / "good"

    def kinds(self):
        """The ways in which the store can fail here."""
        return ["replaced by a file", "read-only"] + (["full"] if self.mounted else [])

    def fail(self, kind):
        """Makes it fail; the returned function heals it."""
        if kind == "replaced by a file":
            return self.replace()
        return self.fill() if kind == "full" else self.make_read_only()

    def replace(self):
        store, away = self.path("local-bad"), self.volume / "away"
        store.rename(away)
        store.touch()

        def heal():
            store.unlink()
            away.rename(store)
        return heal

    def make_read_only(self):
        store = self.path("local-bad")
        if not self.mounted:
            if os.getuid() == 0:
                subprocess.run(["chattr", "+i", str(store)], check=True)
                return lambda: subprocess.run(["chattr", "-i", str(store)], check=True)
            store.chmod(0o555)
            return lambda: store.chmod(0o755)
        deadline = time.monotonic() + 30
        # Not while a file is being written.
        while self.remount("ro"):
            if time.monotonic() > deadline:
                raise Trouble(f"cannot make {self.volume} read-only")
            time.sleep(0.05)
        return lambda: self.remount("rw")

    def remount(self, how):
        return subprocess.run(["mount", "-o", f"remount,{how}", str(self.volume)], capture_output=True).returncode

    def fill(self):
        ballast = self.volume / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            for chunk in [b"x" * (1 << 20), b"x" * 4096]:
                with contextlib.suppress(OSError):
                    while file.write(chunk):
                        pass
        return lambda: ballast.unlink(missing_ok=True)

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.volume)], capture_output=True)
            self.mounted = False


def unmount_below(base):
    """What an earlier run that was killed may have left mounted."""
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        if line.split()[1].startswith(f"{base}/"):
            subprocess.run(["umount", "-l", line.split()[1]], check=True)
