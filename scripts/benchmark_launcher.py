"""The measurements of scripts/benchmark-launcher."""

import argparse
import json
import pathlib
import shutil
import sys
import time

from benchmark_world import Machine, ZooKeeper
from world import Process, close, cpu_seconds, memory_of, own_environment, say, table

NODES, REQUESTS, POOLS = "/nodepool/nodes", "/nodepool/requests", "/nodepool/components/pool"
# Seconds, but for the last ones: the limit of each figure. CPU: a tenth of what the original took.
LIMITS = {
    "start to registered pool": 0.3,
    "one request, new node": 0.25,
    "one request, ready node": 0.05,
    "500 requests": 5,
    "500 requests, CPU": 1.2,
    "1500 requests": 15,
    "1500 requests, CPU": 3.4,
    "memory with 2000 nodes (MB)": 22,
    "idle packets per second": 1,
}
# These must not be less.
AT_LEAST = {
    "500 requests, share of the bare rate": 0.5,
    "1500 requests, share of the bare rate": 0.5,
}


class Bench:
    def __init__(self, options):
        self.options = options
        self.results = []

    def note(self, name, value, remark=""):
        self.results.append((name, value, remark))
        say(f"{name}: {value:.3f} {remark}")

    def config(self, folder, port, label="small"):
        path = folder / "nodepool.yaml"
        path.write_text(json.dumps({
            "zookeeper-servers": [{"host": "127.0.0.1", "port": port, "chroot": "/launcher"}],
            "labels": [{"name": label}],
            "providers": [{
                "name": "cloud", "driver": "fake", "cloud": "fake", "cloud-images": [{"name": "image"}],
                "fake": {"launch-delay": 0.1},
                "pools": [{
                    "name": "main", "host-key-checking": False,
                    "labels": [{"name": label, "cloud-image": "image"}],
                }],
            }],
        }))
        return path

    def ask(self, client, reuse=True):
        record = {
            "state": "requested", "state_time": time.time(), "declined_by": [], "node_types": ["small"], "nodes": [],
            "reuse": reuse, "requestor": "benchmark", "requestor_data": None, "provider": None,
            "relative_priority": 0, "event_id": None, "created_time": time.time(), "tenant_name": None,
        }
        data = json.dumps(record).encode()
        return client.create_async(f"{REQUESTS}/200-", data, ephemeral=True, sequence=True)

    def wait_fulfilled(self, client, paths, limit=300):
        """Waits until all are fulfilled, and answers their records."""
        done, until = {}, time.monotonic() + limit
        while len(done) < len(paths):
            if time.monotonic() > until:
                raise SystemExit(f"only {len(done)} of {len(paths)} requests are fulfilled")
            missing = [path for path in paths if path not in done]
            # Those that were submitted first are mostly fulfilled first.
            asked = [(path, client.get_async(path)) for path in missing[:200]]
            for path, answer in asked:
                record = json.loads(answer.get()[0])
                if record["state"] == "fulfilled":
                    done[path] = record
            if len(paths) == 1:
                time.sleep(0.001)
            elif not any(path in done for path, _ in asked):
                time.sleep(0.02)
        return [done[path] for path in paths]

    def give_back(self, client, records, paths):
        for path in paths:
            client.delete_async(path)
        for node in [node for record in records for node in record["nodes"]]:
            data = json.loads(client.get(f"{NODES}/{node}")[0])
            data.update(state="used", state_time=time.time())
            client.set(f"{NODES}/{node}", json.dumps(data).encode())
        until = time.monotonic() + 120
        while client.get_children(NODES) and time.monotonic() < until:
            time.sleep(0.1)

    def bare_rate(self, client, count=3000):
        """Creates per second, as many under way as the launcher has."""
        client.ensure_path("/bare")
        begun, under_way = time.monotonic(), []
        for number in range(count):
            under_way.append(client.create_async(f"/bare/{number}", b"x" * 600))
            if len(under_way) >= 64:
                under_way.pop(0).get()
        for answer in under_way:
            answer.get()
        return count / (time.monotonic() - begun)

    def run(self):
        base = pathlib.Path(self.options.base)
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        say(Machine().describe())
        with ZooKeeper(base / "zookeeper", None, not self.options.no_sync) as server:
            server.wait_until_it_serves()
            server.warm_up()
            client = server.client("/launcher")
            bare = self.bare_rate(client)
            self.note("bare creates per second", bare)
            config = self.config(base, server.port)
            argv = [f"{self.options.bin}/nodepool-launcher", "-f", "-c", str(config)]
            client.ensure_path(POOLS)
            client.ensure_path(REQUESTS)
            begun = time.monotonic()
            with Process(argv, base / "launcher.log", env=own_environment()) as launcher:
                pid = launcher.process.pid
                while not client.get_children(POOLS):
                    launcher.check()
                    time.sleep(0.002)
                self.note("start to registered pool", time.monotonic() - begun)
                time.sleep(1)
                self.single(client, "one request, new node", reuse=False)
                self.ready(client)
                for count in self.options.requests:
                    self.many(client, server, pid, count, bare)
                self.memory(client, pid)
                self.idle(client, server)
            close(client)

    def single(self, client, name, reuse):
        samples = []
        for _ in range(10):
            begun = time.monotonic()
            path = self.ask(client, reuse).get()
            records = self.wait_fulfilled(client, [path])
            samples.append(time.monotonic() - begun)
            self.give_back(client, records, [path])
        samples.sort()
        self.note(name, samples[len(samples) // 2], f"(median of {len(samples)}; worst {samples[-1]:.3f})")

    def ready(self, client):
        samples = []
        for _ in range(10):
            path = self.ask(client, False).get()
            records = self.wait_fulfilled(client, [path])
            client.delete(path)
            node = f"{NODES}/{records[0]['nodes'][0]}"
            while json.loads(client.get(node)[0])["allocated_to"]:
                time.sleep(0.01)
            time.sleep(0.2)
            begun = time.monotonic()
            path = self.ask(client).get()
            again = self.wait_fulfilled(client, [path])
            samples.append(time.monotonic() - begun)
            assert again[0]["nodes"] == records[0]["nodes"], (again, records)
            self.give_back(client, again, [path])
        samples.sort()
        self.note("one request, ready node", samples[len(samples) // 2], f"(worst {samples[-1]:.3f})")

    def many(self, client, server, pid, count, bare):
        cpu, writes, begun = cpu_seconds(pid), server.transactions(), time.monotonic()
        paths = [answer.get() for answer in [self.ask(client, False) for _ in range(count)]]
        records = self.wait_fulfilled(client, paths)
        took = time.monotonic() - begun
        self.note(f"{count} requests", took)
        self.note(f"{count} requests, CPU", cpu_seconds(pid) - cpu)
        rate = (server.transactions() - writes) / took
        self.note(f"{count} requests, writes per second", rate)
        self.note(f"{count} requests, share of the bare rate", rate / bare)
        self.give_back(client, records, paths)

    def memory(self, client, pid):
        record = {"state": "ready", "state_time": time.time(), "provider": "somebody", "pool": "main", "type": ["x"]}
        record |= {f"key{number}": "x" * 20 for number in range(20)}
        data = json.dumps(record).encode()
        for answer in [client.create_async(f"{NODES}/", data, sequence=True) for _ in range(2000)]:
            answer.get()
        time.sleep(8)
        rss, pss, own, threads = memory_of(pid)
        self.note("memory with 2000 nodes (MB)", rss, f"(PSS {pss:.1f}, anonymous {own:.1f}, {threads} threads)")

    def idle(self, client, server):
        time.sleep(5)
        session = client.get(f"{POOLS}/{client.get_children(POOLS)[0]}")[1].ephemeralOwner
        before = server.packets_of(session, None)
        time.sleep(30)
        self.note("idle packets per second", (server.packets_of(session, None) - before) / 30)

    def report(self):
        missed = 0
        rows = []
        for name, value, remark in self.results:
            limit, least = LIMITS.get(name), AT_LEAST.get(name)
            verdict, shown = "", ""
            if limit is not None or least is not None:
                is_missed = value > limit if least is None else value < least
                verdict = "MISSED" if is_missed else "ok"
                shown = f"≤ {limit}" if least is None else f"≥ {least}"
                missed += is_missed
            rows.append([name, f"{value:.3f}", shown, verdict, remark])
        table(["figure", "value", "limit", "", "remark"], rows)
        return 1 if missed else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--no-sync", action="store_true")
    parser.add_argument("--keep", action="store_true")
    numbers = lambda text: [int(number) for number in text.split(",")]
    parser.add_argument("--requests", type=numbers, default=[500, 1500])
    options = parser.parse_args()
    bench = Bench(options)
    try:
        bench.run()
    finally:
        code = bench.report()
        if not options.keep:
            shutil.rmtree(options.base, ignore_errors=True)
    sys.exit(code)


main()
