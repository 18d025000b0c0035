"""Nova in one process: conductor, scheduler, a compute host and the API. They talk within the process, without RabbitMQ."""

import os
import sys
import time
import urllib.error
import urllib.request

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
from nova import monkey_patch

monkey_patch.patch()
sys.argv = ["nova"]

import on_request
import os_vif
from nova import context, service
from nova.compute import manager
from nova.compute import rpcapi as compute
from nova.conductor import rpcapi as conductor
from nova.objects import host_mapping
from nova.scheduler import rpcapi as scheduler
from nova.wsgi import osapi_compute

import nova.conf

# Drivers are looked for in this package only.
sys.modules["nova.virt.on_request"] = on_request
# The pretended hypervisor writes no file with the name of its host.
manager.ComputeManager._ensure_existing_node_identity = lambda self, service: None


def wait_for(url):
    """All services start side by side, and a compute host tells Placement what it has."""
    end = time.monotonic() + 180
    while True:
        try:
            return urllib.request.urlopen(url, timeout=180).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


wait_for(nova.conf.CONF.keystone_authtoken.www_authenticate_uri)
wait_for(nova.conf.CONF.placement.endpoint_override)
os_vif.initialize()
running = []
for binary, arguments in {
    "nova-conductor": {"topic": conductor.RPC_TOPIC},
    "nova-scheduler": {"topic": scheduler.RPC_TOPIC},
    "nova-compute": {"topic": compute.RPC_TOPIC, "topic_alt": compute.RPC_TOPIC_ALT, "host": "compute"},
}.items():
    running.append(service.Service.create(binary=binary, **arguments))
    running[-1].start()
host_mapping.discover_hosts(context.get_admin_context())
application = osapi_compute.application
