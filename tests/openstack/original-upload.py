"""Uploads an image as the Python original does, by its own code.

    original-upload.py CLOUD NAME FILE FORMAT MD5 SHA256 META

META is a JSON object. Prints the image's id.
"""

import json
import logging
import sys
import types

import openstack
from nodepool.driver.openstack.adapter import OpenStackAdapter

cloud, name, file, image_format, md5, sha256, meta = sys.argv[1:]
# Without a section of nodepool.yaml, of which nothing else matters for an upload.
adapter = OpenStackAdapter.__new__(OpenStackAdapter)
adapter._client = openstack.connect(cloud=cloud)
adapter.log = logging.getLogger("adapter")
adapter.provider = types.SimpleNamespace(image_upload_timeout=3600)
print(adapter.uploadImage(None, name, file, image_format, json.loads(meta), md5, sha256))
