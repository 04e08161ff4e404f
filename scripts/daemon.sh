# shellcheck shell=bash
# Read by scripts that need a daemon: builds it, and starts it with what the environment says.
cargo build --release --quiet --package lantern

# start_daemon LOG: sets `daemon`, its process, and `host`, where it serves at a free port.
start_daemon() {
    : >"$1"
    OLLAMA_HOST=127.0.0.1:0 target/release/lantern serve >"$1" 2>&1 &
    daemon=$!
    until host=$(sed -n 's/^Lantern .* serves at //p' "$1") && [ -n "$host" ]; do
        kill -0 $daemon || { cat "$1" >&2; exit 1; }
    done
}
