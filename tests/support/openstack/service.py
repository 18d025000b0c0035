"""What uwsgi loads: the service that its configuration names, after a cure for its sqlite, with a note for the log.

oslo.db opens every transaction with a deferred BEGIN. One that reads first and writes later fails at once with "database is
locked" when another thread has committed in between: no timeout applies to that. So transactions that will write begin
with BEGIN IMMEDIATE, which does wait for its turn.
"""

import importlib
import os
import sys

import sqlalchemy
import uwsgi
from oslo_db.sqlalchemy import enginefacade

_create_session = enginefacade._TransactionFactory._create_session


def _create_marked_session(self, mode, bind=None):
    if mode is enginefacade._WRITER and bind is None:
        if not self._started:
            self._start()
        bind = self._writer_engine.execution_options(will_write=True)
    return _create_session(self, mode, bind)


enginefacade._TransactionFactory._create_session = _create_marked_session


@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute", retval=True)
def _begin_immediate(connection, cursor, statement, parameters, context, executemany):
    if statement == "BEGIN" and connection.get_execution_options().get("will_write"):
        statement = "BEGIN IMMEDIATE"
    return statement, parameters


service = uwsgi.opt["openstack_service"].decode()
config = uwsgi.opt["openstack_config"].decode()
directory, file = os.path.split(config)
os.environ[f"OS_{service.upper()}_CONFIG_DIR"] = directory
# Nova reads its pipelines from the first of its files.
os.environ[f"OS_{service.upper()}_CONFIG_FILES"] = f"nova-api-paste.ini;{file}" if service == "nova" else file
# Cinder reads no variable.
sys.argv = [service, "--config-file", config] if service == "cinder" else [service]
module = "all_of_nova" if service == "nova" else f"{service}.wsgi.api"
answer = importlib.import_module(module).application


def application(environ, start_response):
    """Tells the log which project has asked: the one that Keystone named for the token."""
    try:
        return answer(environ, start_response)
    finally:
        uwsgi.set_logvar("project", environ.get("HTTP_X_PROJECT_ID") or "-")
