#!/bin/sh
# Prepares DAGSTER_HOME, then becomes the command of the service.
set -eu
if [ "${VSEL_ROLE:-}" = code-server ]; then
    # Runs of an earlier container of this service died with it.
    python -m automation.instance --fail-orphaned-runs >&2
else
    python -m automation.instance >&2
fi
exec "$@"
