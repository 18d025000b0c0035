"""The soak of scripts/soak, which calls this with a Python that has kazoo: starts the world, disturbs it, heals it, and
says whether anything was lost.
"""

import argparse
import collections
import contextlib
import functools
import logging
import os
import pathlib
import shutil
import signal
import statistics
import sys
import threading
import time

from soak_config import IMAGES_OF_FLEET, unmount_below
from soak_ensemble import Ensemble
from soak_faults import BuilderFaults, Ledger, ZooKeeperFaults
from soak_fleet import NAMES, Fleet, wait_until
from soak_records import all_problems
from soak_watch import Watch
from soak_work import Work
from world import Trouble, say, table

SETTLE_SECONDS = 90
QUIET_SECONDS = 6
LONG_LIVED = "a"
# How far memory may be from where it was.
MEMORY_LIMIT = 0.10


class Soak:
    """A run, from its first process to its report."""

    def __init__(self, chosen):
        self.chosen = chosen
        self.ensemble = Ensemble(chosen.base)
        self.fleet = Fleet(chosen.base, chosen.bin, self.ensemble, chosen.fake_dib)
        self.watch = Watch(self.fleet)
        self.ledger = Ledger(self.fleet, self.watch)
        self.phases = []
        self.figures = {}
        self.settled_in = []

    def run(self):
        say("starting three servers and two builders")
        self.ensemble.start()
        for builder in self.fleet.builders.values():
            builder.start()
        self.watch.start()
        wait_until(lambda: self.watch.snapshot and len(self.watch.snapshot.components) == len(NAMES), 30, "the builders")
        self.disturb("warm-up", self.chosen.warm_up)
        self.settle("before")
        self.disturb("soak", self.chosen.minutes * 60)
        self.settle("after")
        self.stop()

    def disturb(self, name, seconds):
        """Work and faults for so long."""
        say(f"{name}: {seconds:.0f} s of work and faults, seed {self.chosen.seed}")
        seed = f"{self.chosen.seed}-{name}"
        parts = [
            Work(self.fleet, self.watch, self.ledger, seed),
            ZooKeeperFaults(self.fleet, self.watch, self.ledger, seed),
            BuilderFaults(self.fleet, self.watch, self.ledger, seed),
        ]
        self.phases = parts
        threads = [threading.Thread(target=part.run, daemon=True) for part in parts]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(60, left))
            self.progress()
        for part in parts:
            part.ending.set()
        for thread in threads:
            thread.join()

    def progress(self):
        keys = [
            "builds ready", "uploads ready", "uploads deleted", "faults", "sessions lost", "requests fulfilled",
            "doubled builds", "requests lost", "invariants broken",
        ]
        memory = self.fleet.builders[LONG_LIVED].figures()["anonymous"]
        say(", ".join(f"{key} {self.watch.counts[key]}" for key in keys) + f", memory {memory:.1f} MB")

    def heal(self):
        """As an operator would: everything runs, nothing fails, all images are configured and may be built."""
        self.fleet.mend_store()
        self.ensemble.heal()
        for file in (self.fleet.base / "once").iterdir():
            file.unlink()
        self.fleet.configuration.reset()
        for image in IMAGES_OF_FLEET:
            unpause = functools.partial(self.fleet.client, "image-unpause", image)
            wait_until(lambda unpause=unpause: unpause()[0] == 0, 30, f"image-unpause {image}")

    def idle(self):
        """Whether no build runs or waits: a request that meets a running build would end with that one."""
        snapshot = self.watch.fresh_snapshot()
        return snapshot and not snapshot.requests and all(build.state != "building" for build in snapshot.builds.values())

    def settle(self, name):
        """Heals, asks for every image, and waits until nothing is wrong any more."""
        say(f"healing ({name})")
        self.heal()
        with contextlib.suppress(Trouble):
            wait_until(self.idle, SETTLE_SECONDS, "the builds that were asked for")
        since, begun = time.time(), time.monotonic()
        for image in IMAGES_OF_FLEET:
            if not self.phases[0].request(image):
                self.watch.breaks(f"a request for {image} was refused after everything was healed")
        problems = self.problems(since)
        while problems and time.monotonic() < begun + SETTLE_SECONDS:
            time.sleep(0.5)
            problems = self.problems(since)
        self.settled_in.append(time.monotonic() - begun)
        say(f"settled after {self.settled_in[-1]:.1f} s" if not problems else f"not settled after {SETTLE_SECONDS} s")
        # Nothing may come back with the next rounds of the janitors.
        time.sleep(QUIET_SECONDS)
        for problem in self.problems(since):
            self.watch.breaks(f"{name} the soak, settled: {problem}")
        self.figures[name] = self.fleet.builders[LONG_LIVED].figures()

    def problems(self, since):
        snapshot = self.watch.fresh_snapshot()
        if not snapshot:
            return ["ZooKeeper does not answer"]
        found = all_problems(snapshot, self.fleet, since)
        return found + [f"a request for {request.image} has come to nothing" for request in self.watch.waiting_requests()]

    def stop(self):
        """Stops the builders in order and looks at what they leave."""
        for builder in self.fleet.builders.values():
            self.phases[2].stop(builder)
        for pid, base in self.fleet.build_processes().items():
            self.watch.breaks(f"a build process is left after the stop: {pid} ({base})")
        snapshot = self.watch.fresh_snapshot()
        for path in snapshot.components if snapshot else []:
            self.watch.breaks(f"a component is left after the stop: {path}")
        self.watch.read_logs()

    def close(self):
        self.watch.ending.set()
        for part in self.phases:
            part.ending.set()
        # Twice: a thread may have been about to start something.
        for _ in range(2):
            self.fleet.close()
            self.ensemble.close()


def seconds(values, unit=" s"):
    return f"{statistics.median(values):.2f}{unit}", f"{max(values):.2f}{unit}"


def report_faults(samples):
    rows = []
    for kind in sorted({sample.kind for sample in samples}):
        all_of_kind = [sample for sample in samples if sample.kind == kind]
        survived = [sample for sample in all_of_kind if sample.survived]
        alone = [sample for sample in survived if not sample.overlapped]
        row = [kind, str(len(all_of_kind)), str(len(survived)), str(len(alone))]
        row += seconds([sample.seconds for sample in alone]) if alone else ("-", "-")
        able = [sample.since_able for sample in alone if sample.since_able is not None]
        row += seconds(able) if able else ("-", "-")
        row += [seconds([sample.seconds for sample in survived])[1] if survived else "-"]
        rows.append(row)
    total = [len(samples), sum(sample.survived for sample in samples)]
    rows.append(["all", str(total[0]), str(total[1]), str(sum(not sample.overlapped for sample in samples)), *["-"] * 5])
    header = ["fault", "count", "survived", "alone", "median", "worst", "median, able", "worst, able", "worst, with others"]
    table(header, rows)
    print(
        "Times are from the fault, or from its end where nothing can go on before that, to the begin of a build that was\n"
        "asked for then (stores and the fake cloud: to an upload); of faults that no other one overlapped, but the last column.\n"
        "`able`: the same from the moment at which ZooKeeper accepted our request. Builders time out after 5 and 4 s."
    )


def report_figures(figures, watch):
    """Prints the long-lived builder's memory, threads and files, and notes what has grown."""
    before, after = figures["before"], figures["after"]
    rows = []
    for key, words in [("rss", "resident memory, MB"), ("pss", "proportional memory, MB"), ("anonymous", "anonymous memory, MB")]:
        change = after[key] / before[key] - 1
        rows.append([words, f"{before[key]:.2f}", f"{after[key]:.2f}", f"{100 * change:+.1f} %"])
        if key != "anonymous" and abs(change) > MEMORY_LIMIT:
            watch.breaks(f"{words}: {before[key]:.2f} before, {after[key]:.2f} after the soak")
    for key, words in [("threads", "threads"), ("files", "open files")]:
        rows.append([words, str(before[key]), str(after[key]), f"{after[key] - before[key]:+}"])
        if after[key] != before[key]:
            watch.breaks(f"{words}: {before[key]} before, {after[key]} after the soak: {before['kinds']} {after['kinds']}")
    table([f"builder {LONG_LIVED}, settled", "before", "after", "change"], rows)


def report(soak, ended):
    watch = soak.watch
    print()
    report_faults(soak.ledger.samples)
    if len(soak.figures) == 2:
        report_figures(soak.figures, watch)
    for never in ["doubled builds", "requests lost", "invariants broken"]:
        watch.counts.setdefault(never, 0)
    table(["what", "count"], [[what, str(count)] for what, count in sorted(watch.counts.items())])
    messages = sum((log.messages for log in watch.logs.values()), collections.Counter())
    loud = [[*key, str(count)] for key, count in messages.most_common() if key[0] in ("WARN", "ERRO", "CRIT")]
    table(["level", "what the builders said", "count"], loud)
    print(f"settled {', '.join(f'{took:.1f} s' for took in soak.settled_in)} after the healing; load {os.getloadavg()[0]:.2f}")
    for what in watch.broken:
        print(f"BROKEN: {what}")
    verdict = f"{len(watch.broken)} broken" if watch.broken else "nothing is broken"
    print(f"{verdict}{'' if ended else '; it did not come to its end'}; logs: {soak.chosen.base}")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=pathlib.Path, required=True)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--fake-dib", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--warm-up", type=float, default=480)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def remove_data(base):
    """All but the logs."""
    for folder in [*base.glob("*/images"), *base.glob("zookeeper-*/data"), base / "stores"]:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Kazoo reports each refused connection.
    logging.getLogger("kazoo").addHandler(logging.NullHandler())
    logging.getLogger("kazoo").propagate = False
    unmount_below(chosen.base)
    shutil.rmtree(chosen.base, ignore_errors=True)
    chosen.base.mkdir(parents=True)
    soak = Soak(chosen)
    ended = False
    try:
        soak.run()
        ended = True
    except KeyboardInterrupt:
        return 130
    except Exception as trouble:
        soak.watch.breaks(f"the soak did not come to its end: {trouble!r}")
        if not isinstance(trouble, Trouble):
            raise
    finally:
        soak.close()
        report(soak, ended)
    if ended and not soak.watch.broken and not chosen.keep:
        remove_data(chosen.base)
    return 1 if soak.watch.broken else 0


if __name__ == "__main__":
    sys.exit(main())
