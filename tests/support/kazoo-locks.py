"""Takes a lock as the original's daemons do, with kazoo over TLS.

  kazoo-locks.py SERVERS CERT KEY CA TIMEOUT LOCK hold
  kazoo-locks.py SERVERS CERT KEY CA TIMEOUT LOCK blocking|trying FOLDER SEED

`hold` waits for the lock, says `held`, and keeps it until it is killed. The others take it and let go until
FOLDER/stop exists; they say `enough` when they had it often enough for their share, and how often in the end. Who
has it makes FOLDER/holder. Finding that there makes a second holder, which is noted in FOLDER/collisions.
"""

import os
import random
import sys
import time

from kazoo.client import KazooClient

ENOUGH = 30

servers, cert, key, ca, timeout, path, mode, *rest = sys.argv[1:]
client = KazooClient(hosts=servers, timeout=float(timeout), use_ssl=True, certfile=cert, keyfile=key, ca=ca)
client.start(60)

if mode == "hold":
    client.Lock(path, "kazoo").acquire()
    print("held", flush=True)
    while True:
        time.sleep(3600)

folder, seed = rest
random.seed(seed)
holder, stop = os.path.join(folder, "holder"), os.path.join(folder, "stop")
taken = 0
while not os.path.exists(stop):
    lock = client.Lock(path, "kazoo")
    if lock.acquire(blocking=mode == "blocking"):
        try:
            os.close(os.open(holder, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            with open(os.path.join(folder, "collisions"), "a") as collisions:
                collisions.write("kazoo got a lock that is held\n")
        else:
            time.sleep(random.uniform(0, 0.004))
            os.unlink(holder)
        lock.release()
        taken += 1
        if taken == ENOUGH:
            print("enough", flush=True)
    # Somebody who never waits has no chance against one who always stands in the queue.
    time.sleep(random.uniform(0, 0.03))
print("taken", taken, flush=True)
client.stop()
client.close()
