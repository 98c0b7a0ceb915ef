#!/bin/sh
# Pins the whole tree for every platform and Python from 3.11 on, with hashes.
# production.txt is what the image installs; dev.txt adds the embedded server and the tests' tools.
set -eu
bin=$1
"$bin/pip" install --quiet uv
compile() {
    "$bin/uv" pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet "$@"
}
compile -o requirements/production.txt
compile --extra local --group dev -c requirements/production.txt -o requirements/dev.txt
