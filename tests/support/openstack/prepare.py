"""Makes the state that the OpenStack services of the tests begin with, without starting any.

    prepare.py DIR

Run by scripts/openstack-peers with the venv's interpreter. Leaves in DIR/state what Keystone and Glance begin with: the
databases, with projects, users, roles and a catalogue; the keys; `application-credential.json`. Addresses in the catalogue
are stand-ins, such as http://image.one, which place.py replaces by where the services of a test listen. Leaves in
DIR/servers the databases of the others, see prepare_servers.py.
"""

import glob
import importlib
import json
import os
import shutil
import sqlite3
import sys

import place
import prepare_servers
from steps import commands, forked

HERE = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.dirname(os.path.dirname(sys.executable))

# Each region has the same services: RegionTls reaches Glance through TLS, RegionGate through a gate of the harness.
CATALOGUE = [
    ("keystone", "identity", "RegionOne", "http://identity.one/v3"),
    ("keystone", "identity", "RegionTls", "https://identity.tls/v3"),
    ("keystone", "identity", "RegionGate", "http://identity.gate/v3"),
    ("glance", "image", "RegionOne", "http://image.one"),
    ("glance", "image", "RegionTls", "https://image.tls"),
    ("glance", "image", "RegionGate", "http://image.gate"),
]
STAND_IN = "http://identity.one/v3"


def keystone(directory):
    manage = f"keystone-manage --config-file {directory}/keystone.conf"
    user = f"--keystone-user {os.geteuid()} --keystone-group {os.getegid()}"
    for keys in ("fernet-keys", "credential-keys"):
        os.mkdir(f"{directory}/state/{keys}", 0o700)
    commands(
        "keystone.cmd.cli",
        [
            f"{manage} db_sync",
            f"{manage} fernet_setup {user}",
            f"{manage} credential_setup {user}",
            f"{manage} bootstrap --bootstrap-password admin-password --bootstrap-region-id RegionOne"
            f" --bootstrap-public-url {STAND_IN} --bootstrap-internal-url {STAND_IN} --bootstrap-admin-url {STAND_IN}",
        ],
    )
    forked(lambda: populate(directory))()


def glance(directory):
    commands("glance.cmd.manage", [f"glance-manage --config-file {directory}/glance-api.conf db_sync"])


class Api:
    """Keystone's own application, called without a socket."""

    def __init__(self, directory):
        os.environ["OS_KEYSTONE_CONFIG_DIR"] = directory
        os.environ["OS_KEYSTONE_CONFIG_FILES"] = "keystone.conf"
        sys.argv = ["keystone"]
        from werkzeug.test import Client

        self.client = Client(importlib.import_module("keystone.wsgi.api").application)
        self.token = None

    def log_in(self, user, password, project):
        default = {"id": "default"}
        self.token = None
        answer = self.request(
            "POST",
            "/auth/tokens",
            {
                "auth": {
                    "identity": {
                        "methods": ["password"],
                        "password": {"user": {"name": user, "password": password, "domain": default}},
                    },
                    "scope": {"project": {"name": project, "domain": default}},
                }
            },
        )
        self.token = answer.headers["X-Subject-Token"]

    def request(self, method, path, body=None):
        headers = {"X-Auth-Token": self.token} if self.token else {}
        answer = self.client.open("/v3" + path, method=method, json=body, headers=headers)
        if answer.status_code >= 300:
            sys.exit(f"{method} {path}: {answer.status} {answer.get_data(as_text=True)}")
        return answer

    def create(self, kind, **body):
        return self.request("POST", f"/{kind}s", {kind: body}).get_json()[kind]["id"]

    def find(self, kind, name):
        return next(x["id"] for x in self.request("GET", f"/{kind}s").get_json()[kind + "s"] if x["name"] == name)


def populate(directory):
    api = Api(directory)
    api.log_in("admin", "admin-password", "admin")
    roles = {role["name"]: role["id"] for role in api.request("GET", "/roles").get_json()["roles"]}

    def grant(project, user, role):
        api.request("PUT", f"/projects/{project}/users/{user}/roles/{roles[role]}")

    service = api.create("project", name="service", domain_id="default")
    demo = api.create("project", name="demo", domain_id="default")
    user = api.create("user", name="demo", domain_id="default", password="demo-password")
    grant(demo, user, "member")
    grant(demo, api.find("user", "admin"), "admin")
    for name in ("glance", *place.SERVERS):
        own_user = api.create("user", name=name, domain_id="default", password="service-password")
        for role in ("admin", "service"):
            grant(service, own_user, role)
    services = {"keystone": api.find("service", "keystone")}
    for name, kind, region, url in CATALOGUE:
        if name not in services:
            services[name] = api.create("service", name=name, type=kind)
        if region != "RegionOne" and name == "keystone":
            api.create("region", id=region)
        if (kind, region) == ("identity", "RegionOne"):
            continue  # made by the bootstrap
        for interface in ("public", "internal", "admin"):
            api.create("endpoint", service_id=services[name], interface=interface, url=url, region_id=region)
    api.log_in("demo", "demo-password", "demo")
    credential = {"name": "nodepool", "roles": [{"name": "member"}]}
    answer = api.request(
        "POST", f"/users/{user}/application_credentials", {"application_credential": credential}
    ).get_json()["application_credential"]
    with open(f"{directory}/state/application-credential.json", "w") as file:
        json.dump({"id": answer["id"], "secret": answer["secret"]}, file)


def use_write_ahead_log(database):
    """Otherwise those who read and those who write wait for each other; the preparation has both, too."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def put_in_one_file(database):
    """What is in the log still: the steps end without closing anything."""
    connection = sqlite3.connect(database)
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    if busy:
        sys.exit(f"{database} is still in use")


def main():
    directory = os.path.abspath(sys.argv[1])
    for state in ("state", "servers"):
        os.makedirs(f"{directory}/{state}", mode=0o700)
    for name in ("glance/glance-api-paste.ini", *prepare_servers.FILES):
        # As in nova-api-paste.ini: most have the same name.
        service, file = name.split("/")
        shutil.copy(f"{VENV}/etc/{name}", f"{directory}/{file if file.startswith(service) else f'{service}-{file}'}")
    for name in (*place.IMAGES.values(), *place.SERVERS.values()):
        place.write(directory, name, {"NEUTRON_AUTH": "noauth"})
    for name in ("keystone", "glance", *prepare_servers.DATABASES):
        use_write_ahead_log(f"{directory}/state/{name}.db")
    steps = [keystone, glance, *prepare_servers.STEPS]
    for wait in [forked(lambda step=step: step(directory)) for step in steps]:
        wait()
    for database in glob.glob(f"{directory}/state/*.db"):
        put_in_one_file(database)
    prepare_servers.take_apart(directory)


main()
