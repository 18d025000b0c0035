"""Steps of the preparation, each in a process of its own: what they import does not bear each other."""

import importlib
import os
import shlex
import sys


def forked(work):
    """Runs `work` in a child; the result is a function that waits for it."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def wait():
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            sys.exit(f"a step of the preparation ended with {code}")

    return wait


def commands(module, lines):
    """Runs command lines of a program that is imported once, each in a child: they change much of what is global."""
    main = importlib.import_module(module).main
    for line in lines:
        sys.argv = shlex.split(line)
        # keystone-manage wants its arguments, the others read them.
        forked(lambda: main(sys.argv) if module.startswith("keystone") else main())()
