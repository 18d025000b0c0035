"""Makes a directory from which OpenStack services of its own can be started, with the template's state.

    place.py DIR TEMPLATE [NAME=VALUE ...]
    place.py --servers DIR TEMPLATE [NAME=VALUE ...]

The first is for Keystone and Glance, and makes DIR/clouds.yaml; the second adds what runs servers to the same DIR. Then
`uwsgi --ini DIR/SERVICE.ini` starts each. The names: KEYSTONE_PORT and so on, where they listen; GATE_PORT, TLS_KEYSTONE_PORT
and TLS_GLANCE_PORT, at which others stand in front of them; TLS_CA, the authority of those with TLS; TOKEN_TTL, how many
seconds a token is good for; TOKEN_CACHE, how many the others rely on what they have heard of one (-1: none, so that one that
was revoked is refused at once). What is left out stays as it is below.
"""

import glob
import json
import os
import shutil
import sqlite3
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULTS = {
    "KEYSTONE_PORT": "1",
    "GLANCE_PORT": "1",
    "PLACEMENT_PORT": "1",
    "NEUTRON_PORT": "1",
    "NOVA_PORT": "1",
    "CINDER_PORT": "1",
    "GATE_PORT": "1",
    "TLS_KEYSTONE_PORT": "1",
    "TLS_GLANCE_PORT": "1",
    "TLS_CA": "/no/authority",
    "TOKEN_TTL": "14400",
    "TOKEN_CACHE": "300",
    "NEUTRON_AUTH": "keystone",
}
# What each service says of the users by which it talks to the others, and how it checks who talks to it.
LOGS_IN = """\
auth_url = http://127.0.0.1:@KEYSTONE_PORT@/v3
auth_type = password
password = service-password
user_domain_name = Default
project_name = service
project_domain_name = Default
region_name = RegionOne"""
TAKES_TOKENS = f"""\
www_authenticate_uri = http://127.0.0.1:@KEYSTONE_PORT@
{LOGS_IN}
service_token_roles = service
service_token_roles_required = true
token_cache_time = @TOKEN_CACHE@"""
CLOUDS = """\
clouds:
  demo: &demo
    auth: &auth
      auth_url: http://127.0.0.1:@KEYSTONE_PORT@/v3
      username: demo
      password: demo-password
      project_name: demo
      user_domain_name: Default
      project_domain_name: Default
    region_name: RegionOne
    identity_api_version: 3
  demo-admin: {<<: *demo, auth: {<<: *auth, username: admin, password: admin-password}}
  admin: {<<: *demo, auth: {<<: *auth, username: admin, password: admin-password, project_name: admin}}
  wrong: {<<: *demo, auth: {<<: *auth, password: not-the-password}}
  nowhere: {<<: *demo, region_name: RegionNowhere}
  gate: {<<: *demo, region_name: RegionGate}
  import: {<<: *demo, image_import_method: glance-direct}
  tls: &tls
    <<: *demo
    auth: {<<: *auth, auth_url: 'https://localhost:@TLS_KEYSTONE_PORT@/v3'}
    region_name: RegionTls
    cacert: @TLS_CA@
  tls-unknown: {<<: *tls, cacert: null}
  appcred:
    auth_type: v3applicationcredential
    auth:
      auth_url: http://127.0.0.1:@KEYSTONE_PORT@/v3
      application_credential_id: @CREDENTIAL_ID@
      application_credential_secret: @CREDENTIAL_SECRET@
    region_name: RegionOne
    identity_api_version: 3
"""
# Each service, and what its configuration is called.
IMAGES = {"keystone": "keystone.conf", "glance": "glance-api.conf"}
SERVERS = {name: f"{name}.conf" for name in ("placement", "neutron", "nova", "cinder")}


def fill_in(text, values):
    for key, value in {"TAKES_TOKENS": TAKES_TOKENS, "LOGS_IN": LOGS_IN, **values}.items():
        text = text.replace(f"@{key}@", value)
    return text


def write(directory, name, values):
    """Writes one of the configurations beside this file."""
    with open(f"{HERE}/{name}") as source, open(f"{directory}/{name}", "w") as target:
        target.write(fill_in(source.read(), {**DEFAULTS, "DIR": directory, **values}))


def update(database, statement, *rows):
    connection = sqlite3.connect(database)
    connection.executemany(statement, rows)
    connection.commit()
    connection.close()


def place(directory, services, values):
    for service, config in services.items():
        write(directory, config, values)
        with open(f"{HERE}/uwsgi.ini") as source, open(f"{directory}/{service}.ini", "w") as target:
            port = values[f"{service.upper()}_PORT"]
            target.write(fill_in(source.read(), {**values, "SERVICE": service, "CONFIG": config, "PORT": port}))


def place_images(directory, template, values):
    shutil.copytree(f"{template}/state", f"{directory}/state")
    shutil.copy(f"{template}/glance-api-paste.ini", directory)
    os.mkdir(f"{directory}/store")
    with open(f"{directory}/state/application-credential.json") as file:
        credential = json.load(file)
    place(directory, IMAGES, values)
    with open(f"{directory}/clouds.yaml", "w") as file:
        secrets = {"CREDENTIAL_ID": credential["id"], "CREDENTIAL_SECRET": credential["secret"]}
        file.write(fill_in(CLOUDS, {**values, **secrets}))
    addresses = {
        "http://identity.one": f"http://127.0.0.1:{values['KEYSTONE_PORT']}",
        "http://identity.gate": f"http://127.0.0.1:{values['KEYSTONE_PORT']}",
        "https://identity.tls": f"https://localhost:{values['TLS_KEYSTONE_PORT']}",
        "http://image.one": f"http://127.0.0.1:{values['GLANCE_PORT']}",
        "http://image.gate": f"http://127.0.0.1:{values['GATE_PORT']}",
        "https://image.tls": f"https://localhost:{values['TLS_GLANCE_PORT']}",
    }
    update(f"{directory}/state/keystone.db", "UPDATE endpoint SET url = replace(url, ?, ?)", *addresses.items())


def place_servers(directory, template, values):
    for service in SERVERS:
        # Left by an earlier start whose port was taken.
        for file in glob.glob(f"{directory}/state/{service}*.db*"):
            os.remove(file)
        for file in glob.glob(f"{template}/{service}-*"):
            shutil.copy(file, directory)
    shutil.copytree(f"{template}/servers", f"{directory}/state", dirs_exist_ok=True)
    place(directory, SERVERS, values)
    # Nova keeps in one database where its others are.
    where = "UPDATE cell_mappings SET database_connection = replace(database_connection, '@DIR@', ?)"
    update(f"{directory}/state/nova_api.db", where, (directory,))


def main():
    arguments = sys.argv[1:]
    way = place_images
    if arguments[0] == "--servers":
        way = place_servers
        del arguments[0]
    directory, template, *given = arguments
    values = dict(DEFAULTS, DIR=directory, MODULES=HERE)
    for word in given:
        name, value = word.split("=", 1)
        if name not in DEFAULTS:
            sys.exit(f"place.py: there is no {name}")
        values[name] = value
    way(directory, template, values)


if __name__ == "__main__":
    main()
