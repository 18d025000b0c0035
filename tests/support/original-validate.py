"""The original's `config-validate` over a folder of configurations that are its own test data.

  original-validate.py FOLDER

Copies them into FOLDER, with the places that its tests fill in filled in, and prints `accepted` or `refused` and the
name of each.
"""

import logging
import os
import re
import sys

import nodepool
from nodepool.cmd.config_validator import ConfigValidator

# What its tests put between braces: names of files and of servers. Nobody looks at them.
PLACE = re.compile(r"(?<![{$])\{([a-z_]+)\}")


def main(folder):
    logging.disable(logging.CRITICAL)
    fixtures = os.path.join(os.path.dirname(nodepool.__file__), "tests", "fixtures")
    for parent, _, names in os.walk(fixtures):
        for name in names:
            path = os.path.join(parent, name)
            if not name.endswith(".yaml"):
                continue
            with open(path, encoding="utf-8") as file:
                text = PLACE.sub(lambda found: "2281" if found[1].endswith("_port") else "/place", file.read())
            copy = os.path.join(folder, os.path.relpath(path, fixtures).replace("/", "-"))
            with open(copy, "w", encoding="utf-8") as file:
                file.write(text)
            refused = ConfigValidator(copy).validate()
            print("refused" if refused else "accepted", copy, flush=True)


main(sys.argv[1])
