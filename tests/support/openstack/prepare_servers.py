"""The state with which Placement, Nova, Neutron and Cinder begin: databases, flavors, networks.

Flavors: m1.tiny and m1.small; m1.nohost, for which no host is good enough. Networks, for all projects: `private`, whose
addresses are from 10.0.0.0/16, and `public` for floating IPs, from 203.0.113.0/24 (RFC 5737), with a router between them.
"""

import glob
import importlib.util
import os
import shutil
import sys

import place
from steps import commands, forked

FILES = ["nova/api-paste.ini", "neutron/api-paste.ini", "cinder/api-paste.ini", "cinder/resource_filters.json"]


def nova(directory):
    manage = f"nova-manage --config-file {directory}/nova.conf"
    cell = f"sqlite:///{directory}/state/nova_%s.db?timeout=30"
    commands(
        "nova.cmd.manage",
        [
            f"{manage} api_db sync",
            f"{manage} cell_v2 map_cell0 --database_connection {cell % 'cell0'}",
            f"{manage} db sync",
            f"{manage} cell_v2 create_cell --name cell1 --database_connection {cell % 'cell1'} --transport-url fake:///",
        ],
    )
    where = "UPDATE cell_mappings SET database_connection = replace(database_connection, ?, '@DIR@')"
    place.update(f"{directory}/state/nova_api.db", where, (directory,))
    forked(lambda: flavors(directory))()


def flavors(directory):
    from nova import config, context, objects

    config.parse_args(["nova", "--config-file", f"{directory}/nova.conf"])
    objects.register_all()
    for name, memory, traits in (
        ("m1.tiny", 512, {}),
        ("m1.small", 2048, {}),
        # The pretended hypervisor has no such thing.
        ("m1.nohost", 512, {"trait:HW_CPU_X86_SGX": "required"}),
    ):
        objects.Flavor(
            context=context.get_admin_context(),
            flavorid=name,
            name=name,
            memory_mb=memory,
            vcpus=1,
            root_gb=5,
            ephemeral_gb=0,
            swap=0,
            rxtx_factor=1.0,
            vcpu_weight=0,
            disabled=False,
            is_public=True,
            extra_specs=traits,
        ).create()


def placement(directory):
    commands("placement.cmd.manage", [f"placement-manage --config-file {directory}/placement.conf db sync"])


def cinder(directory):
    commands("cinder.cmd.manage", [f"cinder-manage --config-file {directory}/cinder.conf db sync"])


def neutron(directory):
    forked(lambda: neutron_tables(f"sqlite:///{directory}/state/neutron.db"))()
    forked(lambda: networks(directory))()


def neutron_tables(database):
    """Neutron's migrations do not run on sqlite: the tables are made as its models have them now."""
    import sqlalchemy
    from neutron.db import migration
    from neutron.db.migration.models import head

    tables = head.get_metadata()
    engine = sqlalchemy.create_engine(database)
    tables.create_all(engine)
    # What a migration puts in: the rules of each new security group.
    versions = os.path.join(os.path.dirname(migration.__file__), "alembic_migrations", "versions")
    file = os.path.join(versions, "2023.2/expand/c33da356b165_security_group_default_rules.py")
    spec = importlib.util.spec_from_file_location("rules", file)
    rules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rules)
    attributes = tables.tables["standardattributes"]
    with engine.begin() as connection:
        for rule in rules.default_template_rules:
            row = {key: value for key, value in rule.items() if key != "description"}
            attribute = sqlalchemy.insert(attributes).values(
                description=rule["description"], resource_type=rules.table_name
            )
            (key,) = connection.execute(attribute).inserted_primary_key
            rows = sqlalchemy.insert(tables.tables[rules.table_name])
            connection.execute(rows.values(standard_attr_id=key, **row))


def networks(directory):
    """By Neutron's own application, called without a socket and without Keystone."""
    os.environ["OS_NEUTRON_CONFIG_DIR"] = directory
    os.environ["OS_NEUTRON_CONFIG_FILES"] = "neutron.conf"
    sys.argv = ["neutron"]
    from werkzeug.test import Client

    client = Client(importlib.import_module("neutron.wsgi.api").application)

    def send(method, path, body):
        answer = client.open("/v2.0" + path, method=method, json=body)
        if answer.status_code >= 300:
            sys.exit(f"{method} {path}: {answer.status} {answer.get_data(as_text=True)}")
        return answer.get_json()

    def create(kind, **body):
        return send("POST", f"/{kind}s", {kind: {"project_id": "everybody", **body}})[kind]["id"]

    flat = {"provider:network_type": "flat", "provider:physical_network": "outside", "router:external": True}
    public = create("network", name="public", **flat)
    create("subnet", name="public", network_id=public, ip_version=4, cidr="203.0.113.0/24", enable_dhcp=False)
    private = create("network", name="private", shared=True)
    subnet = create("subnet", name="private", network_id=private, ip_version=4, cidr="10.0.0.0/16")
    router = create("router", name="between", external_gateway_info={"network_id": public})
    send("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})


STEPS = [nova, neutron, placement, cinder]
DATABASES = ["nova_api", "nova_cell0", "nova_cell1", "neutron", "placement", "cinder"]


def take_apart(directory):
    """Puts the databases where place.py finds them if they are wanted."""
    for service in place.SERVERS:
        for database in glob.glob(f"{directory}/state/{service}*.db"):
            shutil.move(database, f"{directory}/servers")
