#!/bin/sh
# Health of a service, by its role: does it answer, or (daemon) has it been at work lately?
set -eu
case "${VSEL_ROLE:-}" in
    code-server)
        exec dagster api grpc-health-check --host 127.0.0.1 --port "${VSEL_CODE_SERVER_PORT:-4000}"
        ;;
    webserver)
        exec python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=10)' \
            "http://127.0.0.1:${VSEL_WEBSERVER_PORT:-3000}/server_info"
        ;;
    daemon)
        exec dagster-daemon liveness-check
        ;;
    *)
        echo "VSEL_ROLE=${VSEL_ROLE:-} is none of code-server, webserver, daemon" >&2
        exit 1
        ;;
esac
