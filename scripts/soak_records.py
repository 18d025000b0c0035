"""ZooKeeper's records as scripts/soak looks at them: the tree at one moment, and the files that belong to it.

Knows the contract by itself and uses no code of what it tests.
"""

import contextlib
import dataclasses
import json
import re

from soak_config import IMAGES_OF_FLEET, WITHOUT_FILES
from world import BUILDERS, IMAGES

FILE_OF_BUILD = re.compile(r"^(.+)-([0-9a-f]{32})\.(.+)$")
CONTENDER = re.compile(r"__lock__-?\d{10}$")


@dataclasses.dataclass
class Build:
    image: str
    id: str
    record: dict
    created: float
    # Provider, then upload id, to the record.
    uploads: dict

    @property
    def path(self):
        return f"{IMAGES}/{self.image}/builds/{self.id}"

    @property
    def state(self):
        return self.record.get("state")

    def formats(self):
        return [word for word in self.record.get("formats", "").split(",") if word]

    def ready_uploads(self, provider):
        return [upload for upload in self.uploads.get(provider, {}).values() if upload.get("state") == "ready"]


class Snapshot:
    """What is below /nodepool."""

    def __init__(self, tree):
        self.requests, self.paused, self.builds, self.contenders, self.components = {}, set(), {}, {}, {}
        self.unreadable = []
        for path, (data, stat) in sorted(tree.items()):
            if CONTENDER.search(path):
                self.contenders[path] = stat.ephemeralOwner
            elif path.startswith(f"{BUILDERS}/"):
                self.components[path] = (self.parse(path, data), stat.ephemeralOwner)
            elif path.startswith(f"{IMAGES}/"):
                self.note(path.split("/")[3:], path, data, stat)

    def note(self, words, path, data, stat):
        image, *below = words
        match below:
            case ["request-build"]:
                self.requests[image] = stat
            case ["pause"]:
                self.paused.add(image)
            case ["builds", build] if build != "lock":
                self.builds[image, build] = Build(image, build, self.parse(path, data), stat.ctime / 1000, {})
            case ["builds", build, "providers", provider, "images", upload] if upload != "lock":
                # Its build may have gone while the tree was read.
                if found := self.builds.get((image, build)):
                    found.uploads.setdefault(provider, {})[upload] = self.parse(path, data)

    def parse(self, path, data):
        try:
            return json.loads(data)
        except ValueError:
            self.unreadable.append(path)
            return {}

    def of(self, image):
        return [build for build in self.builds.values() if build.image == image]

    def newest_ready(self, image):
        ready = [build for build in self.of(image) if build.state == "ready"]
        return max(ready, key=lambda build: build.record["state_time"], default=None)


def missing_files(build, fleet):
    """The files that a ready build must have and has not."""
    if build.image in WITHOUT_FILES:
        return []
    owner = owner_of(build, fleet)
    if not owner:
        return [f"(its builder {build.record.get('builder_id')} is none of ours)"]
    base = owner.images_dir / f"{build.image}-{build.id}"
    return [name for name in (f"{base}.{format}" for format in build.formats()) if not owner.images_dir.joinpath(name).is_file()]


def owner_of(build, fleet):
    known = {builder.builder_id(): builder for builder in fleet.builders.values()}
    return known.get(build.record.get("builder_id"))


def stray_files(snapshot, fleet):
    """What stands in an images-dir and belongs to no record."""
    found = []
    for builder in fleet.builders.values():
        for file in builder.images_dir.iterdir():
            # The builder's own: its id, its lock.
            if file.name == "builder_id.txt" or file.name.startswith("."):
                continue
            parts = FILE_OF_BUILD.match(file.name)
            if not parts or (parts[1], parts[2]) not in snapshot.builds:
                found.append(f"a file without a record: {file}")
    return found


def store_problems(snapshot, fleet):
    """Where a store and the upload records do not agree."""
    found = []
    for provider in ("local-good", "local-bad"):
        recorded = {
            upload.get("external_id"): f"{build.path} upload {id}"
            for build in snapshot.builds.values() for id, upload in build.uploads.get(provider, {}).items()
            if upload.get("state") == "ready"
        }
        stored = {}
        for file in fleet.stores.path(provider).iterdir():
            if file.name.startswith("."):
                found.append(f"a leftover of an upload: {file}")
            elif file.suffix == ".json":
                # It may go while we look.
                with contextlib.suppress(FileNotFoundError):
                    stored[json.loads(file.read_text())["id"]] = file
            elif not file.with_name(f"{file.name}.json").exists():
                found.append(f"an image without its description: {file}")
        found += [f"an image at {provider} without an upload record: {file}" for id, file in stored.items() if id not in recorded]
        found += [f"{name} is ready, but {provider} has no {id}" for id, name in recorded.items() if id not in stored]
    return found


def record_problems(snapshot):
    found = [f"not JSON: {path}" for path in snapshot.unreadable]
    for build in snapshot.builds.values():
        if build.state != "ready":
            found.append(f"a build is left {build.state}: {build.path}")
        for provider, uploads in build.uploads.items():
            found += [
                f"an upload is left {upload.get('state')}: {build.path} {provider} {id}"
                for id, upload in uploads.items() if upload.get("state") != "ready"
            ]
    found += [f"a lock contender is left: {path} of session {owner:#x}" for path, owner in snapshot.contenders.items()]
    return found


def image_problems(snapshot, fleet, since):
    """Images that have no build since then with an upload to each provider."""
    found = [f"a request is still there: {image}" for image in snapshot.requests]
    providers = fleet.configuration.providers()
    for image in IMAGES_OF_FLEET:
        build = snapshot.newest_ready(image)
        if not build or build.created < since:
            found.append(f"{image} has no fresh ready build")
            continue
        found += [f"{build.path} is not uploaded to {provider}" for provider in providers if not build.ready_uploads(provider)]
    return found


def builder_problems(snapshot, fleet):
    found = []
    expected = {builder.component for builder in fleet.builders.values() if builder.wanted}
    if set(snapshot.components) != expected:
        found.append(f"registered are {sorted(snapshot.components)}, expected {sorted(map(str, expected))}")
    states = {path: record.get("state") for path, (record, _) in snapshot.components.items()}
    found += [f"{path} is {state}" for path, state in states.items() if state != "running"]
    found += [f"a build process is left: {pid} ({base})" for pid, base in fleet.build_processes().items()]
    return found


def all_problems(snapshot, fleet, since):
    """What a settled fleet must not show."""
    found = record_problems(snapshot) + image_problems(snapshot, fleet, since) + builder_problems(snapshot, fleet)
    found += [
        f"{build.path} is ready without its files {missing}" for build in snapshot.builds.values()
        if build.state == "ready" and (missing := missing_files(build, fleet))
    ]
    return found + stray_files(snapshot, fleet) + store_problems(snapshot, fleet)
