"""The random work of scripts/soak: what operators do all day, and what goes wrong at providers and in build commands."""

import concurrent.futures
import heapq
import itertools
import random
import threading
import time

from soak_config import IMAGES_OF_FLEET, PROVIDERS
from soak_ensemble import Unavailable
from soak_faults import DEADLINE, Sample
from world import IMAGES

# Seconds between two operations.
PAUSES = (0.1, 1.4)

# What one build of an image may do besides, as variables of tests/support/fake-dib.sh.
MISHAPS = [
    "FAKE_DIB_FAIL=3", "FAKE_DIB_FAIL=1 FAKE_DIB_SLEEP=2", "FAKE_DIB_NO_FORMAT=qcow2", "FAKE_DIB_NO_CHECKSUM=1",
    "FAKE_DIB_SLEEP=20", "FAKE_DIB_SLEEP=20 FAKE_DIB_IGNORE_TERM=1", "FAKE_DIB_CHILD=$SOAK_DIR/child-of-mishap FAKE_DIB_FAIL=2",
    "FAKE_DIB_CHILD=$SOAK_DIR/child-of-mishap FAKE_DIB_IGNORE_TERM=1 FAKE_DIB_SLEEP=20",
]


class Work:
    """Operations in an order that the seed gives; slow ones do not hold up the others."""

    def __init__(self, fleet, watch, ledger, seed):
        self.fleet, self.watch, self.ledger = fleet, watch, ledger
        self.configuration = fleet.configuration
        self.chance = random.Random(f"{seed}-work")
        self.ending = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(6)
        # What has to be undone, by when.
        self.undo, self.order, self.lock = [], itertools.count(), threading.Lock()
        self.waiting = []
        self.operations = {
            self.request_by_client: 5, self.request_by_znode: 4, self.delete_build: 3, self.delete_upload: 3, self.pause: 2,
            self.mishap: 4, self.remove_image: 1, self.remove_provider: 0.7, self.change_rebuild_age: 1, self.change_image: 1,
            self.fail_store: 1, self.fail_fake: 1,
        }

    def run(self):
        names, weights = list(self.operations), list(self.operations.values())
        while not self.ending.wait(self.chance.uniform(*PAUSES)):
            self.undo_due(time.monotonic())
            # Drawn here, so that the order does not depend on how fast the operations are.
            operation, chance = self.chance.choices(names, weights)[0], random.Random(self.chance.random())
            self.pool.submit(self.guarded, operation, chance)
        self.pool.shutdown()
        # What was running may have left something to undo.
        self.pool = concurrent.futures.ThreadPoolExecutor(6)
        self.undo_due(float("inf"))
        self.pool.shutdown()
        for thread in self.waiting:
            thread.join()

    def guarded(self, operation, *arguments):
        try:
            operation(*arguments)
        except Unavailable:
            self.watch.count(f"{operation.__name__.replace('_', ' ')}: no server")
        except Exception as error:
            self.watch.breaks(f"the script's own {operation.__name__} has failed: {error!r}")

    def later(self, seconds, function, *arguments):
        with self.lock:
            heapq.heappush(self.undo, (time.monotonic() + seconds, next(self.order), function, arguments))

    def undo_due(self, now):
        with self.lock:
            while self.undo and self.undo[0][0] <= now:
                _, _, function, arguments = heapq.heappop(self.undo)
                self.pool.submit(self.guarded, function, *arguments)

    # -- operators

    def request_by_client(self, chance):
        self.request(chance.choice(list(IMAGES_OF_FLEET)))

    def request(self, image):
        before = time.time()
        code, output = self.fleet.client("image-build", image)
        if code == 0:
            self.watch.accepted(image, before)
            self.watch.count("requests by the client")
        elif "not configured" in output:
            self.watch.count("requests refused, no such image")
        else:
            self.watch.count("requests that the client could not make")
        return code == 0

    def request_by_znode(self, chance):
        image, before = chance.choice(list(IMAGES_OF_FLEET)), time.time()
        if self.fleet.ensemble.create(f"{IMAGES}/{image}/request-build"):
            self.watch.accepted(image, before)
            self.watch.count("requests by znode")

    def delete_build(self, chance):
        builds = [build for build in self.builds() if build.state == "ready"]
        if builds:
            build = chance.choice(builds)
            code, _ = self.fleet.client("dib-image-delete", f"{build.image}-{build.id}")
            self.watch.count("dib-image-delete" if code == 0 else "dib-image-delete refused")

    def delete_upload(self, chance):
        uploads = [
            (build, provider, upload)
            for build in self.builds() for provider, uploads in build.uploads.items() for upload in uploads
        ]
        if uploads:
            build, provider, upload = chance.choice(uploads)
            code, _ = self.fleet.client(
                "image-delete", "--provider", provider, "--image", build.image, "--build-id", build.id, "--upload-id", upload
            )
            self.watch.count("image-delete" if code == 0 else "image-delete refused")

    def builds(self):
        snapshot = self.watch.snapshot
        return [build for build in snapshot.builds.values() if build.image in IMAGES_OF_FLEET] if snapshot else []

    def pause(self, chance):
        image = chance.choice(list(IMAGES_OF_FLEET))
        code, _ = self.fleet.client("image-pause", image)
        self.watch.count("image-pause" if code == 0 else "image-pause that failed")
        self.later(chance.uniform(2, 10), self.unpause, image)

    def unpause(self, image):
        code, _ = self.fleet.client("image-unpause", image)
        self.watch.count("image-unpause" if code == 0 else "image-unpause that failed")

    # -- edits of the configuration

    def edit(self, what, change):
        self.configuration.edit(change)
        self.watch.count(f"edits: {what}")

    def remove_image(self, chance):
        image = chance.choice(list(IMAGES_OF_FLEET))
        self.edit("an image goes", lambda configuration: configuration.missing_images.add(image))
        add = lambda: self.edit("an image comes", lambda configuration: configuration.missing_images.discard(image))
        self.later(chance.uniform(1, 12), named(add, "add_image"))

    def remove_provider(self, chance):
        provider = chance.choice(list(PROVIDERS))
        self.edit("a provider goes", lambda configuration: configuration.missing_providers.add(provider))
        add = lambda: self.edit("a provider comes", lambda configuration: configuration.missing_providers.discard(provider))
        self.later(chance.uniform(1, 12), named(add, "add_provider"))

    def change_rebuild_age(self, chance):
        image, age = chance.choice(list(IMAGES_OF_FLEET)), chance.choice([4, 8, 86400])
        self.edit("rebuild-age", lambda configuration: configuration.rebuild_age.update({image: age}))

    def change_image(self, chance):
        image = chance.choice(list(IMAGES_OF_FLEET))
        sleep = f"{chance.uniform(0.1, 3):.1f}"
        self.edit("env-vars", lambda configuration: configuration.extra[image].update({"FAKE_DIB_SLEEP": sleep}))

    # -- what goes wrong

    def mishap(self, chance):
        image = chance.choice(list(IMAGES_OF_FLEET))
        new = self.fleet.base / "once" / f"{image}.new"
        new.write_text(f"export {chance.choice(MISHAPS)}\n")
        new.rename(new.with_suffix(""))
        self.watch.count("mishaps prepared for a build")

    def fail_store(self, chance):
        kind = chance.choice(self.fleet.stores.kinds())
        if self.fleet.fail_store(kind):
            self.later(chance.uniform(2, 12), self.mend_store, kind)

    def mend_store(self, kind):
        self.fleet.mend_store()
        self.await_upload("local-bad", f"store {kind}")

    def fail_fake(self, chance):
        trouble = chance.choice([{"upload-failures": -1}, {"upload-failures": 3}, {"delete-failures": 3}, {"upload-delay": 3}])
        self.edit("the fake cloud fails", lambda configuration: configuration.fake.update(trouble))
        self.later(chance.uniform(2, 12), self.mend_fake)

    def mend_fake(self):
        self.edit("the fake cloud is well", lambda configuration: configuration.fake.clear())
        self.await_upload("fake", "fake cloud failing")

    def await_upload(self, provider, kind):
        """Notes how long it takes from the end of a provider's failure to the next upload there. The pause that grew while
        it failed is part of that."""
        thread = threading.Thread(target=self.guarded, args=(self.watch_uploads, provider, kind, time.time()))
        self.waiting.append(thread)
        thread.start()

    def watch_uploads(self, provider, kind, at):
        ledger = self.ledger.state(self.ledger.disturbed)
        deadline, ask = time.monotonic() + DEADLINE, 0.0
        while time.monotonic() < deadline and not self.ending.is_set():
            uploads = [upload for build in self.builds() for upload in build.ready_uploads(provider)]
            if later := [upload["state_time"] for upload in uploads if upload["state_time"] >= at]:
                self.ledger.note(Sample(kind, at, min(later) - at, overlapped=not self.ledger.undisturbed(ledger)))
                return
            # Something may be wrong with it again.
            if provider in self.configuration.missing_providers or self.fleet.heal_store or self.configuration.fake:
                return
            if time.monotonic() >= ask:
                ask = time.monotonic() + 3
                self.request("middling")
            self.ending.wait(0.2)
        if not self.ending.is_set():
            self.ledger.note(Sample(kind, at))


def named(function, name):
    function.__name__ = name
    return function
