#!/bin/sh
# Starts Ray Serve's HAProxy with three additions that Ray's template has no setting for:
#   - HAProxy's own errors in our JSON envelope (a header bomb never reaches a router);
#   - a limit on how long a request's headers may take;
#   - its metrics and statistics pages on loopback only.
# Ray is pointed here by RAY_SERVE_HAPROXY_BINARY_PATH and passes `-db -f CONFIG ...`.
set -eu
config=
previous=
for argument in "$@"; do
    [ "$previous" = "-f" ] && config=$argument
    previous=$argument
done
error() { # status, type, code, message
    printf '    http-error status %s content-type application/json' "$1"
    printf ' lf-string "{\\"error\\":{\\"type\\":\\"%s\\",\\"code\\":\\"%s\\",' "$2" "$3"
    printf '\\"message\\":\\"%s\\",\\"param\\":null,\\"request_id\\":\\"%%[uuid()]\\"},' "$4"
    printf '\\"detail\\":\\"%s\\"}"\n' "$4"
}
if [ -n "$config" ] && ! grep -q 'serving: own errors' "$config"; then
    additions=$config.serving
    {
        echo '    # serving: own errors'
        echo '    timeout http-request 20s'
        error 400 invalid_request_error invalid_request \
            'not a valid HTTP request, or its headers are too large'
        error 408 invalid_request_error request_timeout \
            'the headers of the request did not arrive in time'
        error 502 server_error bad_gateway 'the router closed the connection'
        error 503 overloaded_error no_router 'no router is ready'
        error 504 timeout_error gateway_timeout 'the router did not answer in time'
    } >"$additions"
    sed -i \
        -e '/^    errorfile 50[234]/d' \
        -e "/^    balance /r $additions" \
        -e 's/^    bind :\([0-9]\)/    bind 127.0.0.1:\1/' \
        -e 's/^  bind \*:/  bind 127.0.0.1:/' \
        "$config"
    rm -f "$additions"
fi
exec "$SERVING_HAPROXY_BINARY" "$@"
