#!/bin/sh
# Starts Ray Serve's HAProxy with what Ray's template has no setting for:
#   - HAProxy's own errors in our JSON envelope (what it cannot read never reaches a router);
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

# An error before the request could be read: a fixed file, since there is nothing to refer to.
unread() { # status and reason, type, code, message
    body=$(printf '{"error":{"type":"%s","code":"%s","message":"%s","param":null,"request_id":null},"detail":"%s"}' \
        "$2" "$3" "$4" "$4")
    file=$config.${1%% *}.http
    printf 'HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\nX-Should-Retry: false\r\n\r\n%s' \
        "$1" "${#body}" "$body" >"$file"
    printf '    errorfile %s %s\n' "${1%% *}" "$file"
}

# An error after it: with the request's ID.
failed() { # status, type, code, message
    id='%[var(txn.request_id),json(ascii)]'
    printf '    http-error status %s content-type application/json' "$1"
    printf ' lf-string "{\\"error\\":{\\"type\\":\\"%s\\",\\"code\\":\\"%s\\",\\"message\\":\\"%s\\",' "$2" "$3" "$4"
    printf '\\"param\\":null,\\"request_id\\":\\"%s\\"},\\"detail\\":\\"%s\\"}"' "$id" "$4"
    printf ' hdr x-request-id "%%[var(txn.request_id)]" hdr retry-after 2\n'
}

if [ -n "$config" ] && ! grep -q 'serving: own errors' "$config"; then
    {
        echo '    # serving: own errors'
        echo '    timeout http-request 20s'
        unread '400 Bad Request' invalid_request_error invalid_request \
            'not a valid HTTP request, or its headers are too large'
        unread '408 Request Timeout' invalid_request_error request_timeout \
            'the headers of the request did not arrive in time'
        failed 502 server_error bad_gateway 'the router closed the connection'
        failed 503 overloaded_error no_router 'no router is ready'
        failed 504 timeout_error gateway_timeout 'the router did not answer in time'
    } >"$config.defaults"
    {
        echo '    # An ID that we would not echo is none; Ray Serve makes one then.'
        echo '    http-request del-header x-request-id unless { req.hdr(x-request-id) -m reg ^[!-~]{1,128}$ }'
        echo '    http-request set-var(txn.request_id) req.hdr(x-request-id)'
        echo '    http-request set-var(txn.request_id) uuid() if !{ var(txn.request_id) -m found }'
    } >"$config.frontend"
    sed -i \
        -e '/^    errorfile 50[234]/d' \
        -e "/^    balance /r $config.defaults" \
        -e "/^frontend http_frontend/,/^    bind /{/^    bind /r $config.frontend
}" \
        -e 's/^    bind :\([0-9]\)/    bind 127.0.0.1:\1/' \
        -e 's/^  bind \*:/  bind 127.0.0.1:/' \
        "$config"
fi
exec "$SERVING_HAPROXY_BINARY" "$@"
