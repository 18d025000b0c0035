"""A hypervisor that only pretends, and fails or takes its time where the metadata of a server ask for it.

osp_delay=SECONDS: so long until the server is ACTIVE. osp_fail=abort: ERROR at once; osp_fail=error: what the hypervisor
says may pass elsewhere, so the scheduler is asked again, which has no other host: ERROR.
"""

import time
import uuid

from nova import exception
from nova.virt import fake


class SameEachTime:
    """Nova's own gives its host another id in each process, with which Nova does not start a second time."""

    def __getattr__(self, name):
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


fake.uuids = SameEachTime()


class Driver(fake.FakeDriver):
    def spawn(self, context, instance, *arguments, **named):
        wish = instance.metadata
        end = time.monotonic() + float(wish.get("osp_delay", 0))
        while time.monotonic() < end:
            time.sleep(0.1)
            # Whoever deletes it must not wait for the rest.
            instance.refresh()
            if instance.task_state == "deleting":
                raise exception.InstanceNotFound(instance_id=instance.uuid)
        if wish.get("osp_fail") == "abort":
            raise exception.BuildAbortException(instance_uuid=instance.uuid, reason="osp_fail=abort")
        if wish.get("osp_fail") == "error":
            raise exception.NovaException("osp_fail=error")
        return super().spawn(context, instance, *arguments, **named)
