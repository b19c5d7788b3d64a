# Sourced by the scripts beside it, after _environment.sh. Defines
#
#     docker_engine [own]    makes a Docker engine ready for the tests, and in it a Python image
#
# and sets DOCKER_HOST and RLM_TEST_DOCKER_IMAGE, where the tests look. An engine that answers is used as it is: the one that
# RLM_TEST_DOCKER_HOST or DOCKER_HOST names, or the machine's own. Where none answers, or one of our "own" is asked for, root
# starts one, which ends with the script. It lies in .docker or where RLM_DOCKER_DIR says, apart from every other engine: with
# folders, a socket and a configuration of its own, without a bridge and without a rule in the machine's firewall, so that
# the networks of its containers are "none" and "host". The image is kept beside it for the next time.
#
# Each run has a folder in there and a lock on it. What a killed run left behind is known by the free lock, and removed.

docker_engine() {
    local folder=${RLM_DOCKER_DIR:-$root/.docker}
    [[ $folder == /* ]] || folder=$PWD/$folder

    export PATH=$PATH:/usr/sbin:/sbin  # where Debian has dockerd and iptables, which a plain shell of root may not look at
    export DOCKER_HOST=${RLM_TEST_DOCKER_HOST:-${DOCKER_HOST:-}}
    [[ -n $DOCKER_HOST ]] || unset DOCKER_HOST
    if [[ ${1:-} != own ]] && engine_answers; then
        export DOCKER_HOST=${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}')}
    elif [[ $EUID == 0 ]] && command -v docker >/dev/null && command -v dockerd >/dev/null; then
        start_engine "$folder"
    else
        say_no_engine
        return
    fi
    if [[ -z ${RLM_TEST_DOCKER_IMAGE:-} ]]; then
        "$root/scripts/docker-image" --keep "$folder/image" 7>&- ||
            fail "The image for the tests could not be made; the lines above say why."
        export RLM_TEST_DOCKER_IMAGE=rlm-python:local
    fi
}

engine_answers() {
    command -v docker >/dev/null && timeout 10 docker version >/dev/null 2>&1
}

say_no_engine() {
    local reason
    reason=$(timeout 10 docker version 2>&1 >/dev/null | tail -n 1) || true
    printf '%s\n' "No Docker engine answers, so every test that needs one will fail. Either" \
        "- start one that $(id -un) may use, rootless or not, or name one with DOCKER_HOST; or" \
        "- install one (on Debian: apt-get install docker.io) and run this as root: it then starts its own for the tests; or" \
        "- leave these tests out with: -k 'not docker'" \
        "What was tried: ${reason:-docker version, which did not answer}" >&2
}

start_engine() {
    local folder=$1/$$
    ((${#folder} < 60)) ||  # the engine makes sockets below it, whose paths are bounded to 107 characters
        fail "$folder is too long a path for an engine. Set RLM_DOCKER_DIR to a shorter one."
    mkdir -p "$1"
    sweep_engines "$1"

    echo "Starting a Docker engine in $folder ..." >&2
    mkdir -p "$folder"
    exec 7>"$folder.lock"
    flock 7
    started_engine=$folder
    trap 'stop_engine "$started_engine"' EXIT
    cat >"$folder/daemon.json" <<END
{
  "hosts": ["unix://$folder/docker.sock"], "pidfile": "$folder/docker.pid",
  "data-root": "$folder/data", "exec-root": "$folder/exec",
  "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "ip-masq": false, "shutdown-timeout": 1
}
END
    # Its socket knows no TLS, and it has none of the images of another engine.
    unset RLM_TEST_DOCKER_HOST RLM_TEST_DOCKER_IMAGE DOCKER_CONTEXT DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_API_VERSION
    # In a session of its own, so that Ctrl-C reaches it last.
    setsid dockerd --config-file "$folder/daemon.json" --group "$(id -gn)" </dev/null >"$folder/log" 2>&1 7>&- &
    export DOCKER_HOST=unix://$folder/docker.sock
    local tries
    for tries in {1..300}; do
        ! engine_answers || return 0
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$folder/log" >&2
    fail "The Docker engine did not start; the lines above are the end of its log."
}

# Remove what runs that were killed have left: whose lock is free is no longer used.
sweep_engines() {
    local lock
    for lock in "$1"/*.lock; do
        [[ -f $lock ]] || continue
        ! flock --nonblock "$lock" true || stop_engine "${lock%.lock}"
    done
}

# Works on an engine in any state: a healthy one, one that was killed and left its containers running, or half a folder.
stop_engine() {
    local folder=$1 pid tries container mount
    pid=$(cat "$folder/docker.pid" 2>&1) || pid=
    if [[ -n $pid ]] && belongs "$pid" "$folder"; then
        kill "$pid"
        for tries in {1..150}; do
            [[ -d /proc/$pid ]] || break
            sleep 0.1
        done
    fi
    for container in "$folder"/data/containers/*; do
        [[ ! -d $container ]] || end_container "${container##*/}"
    done
    for pid in $(grep --files-with-matches --no-messages --fixed-strings "$folder/" /proc/[0-9]*/cmdline | cut -d / -f 3); do
        ! belongs "$pid" "$folder" || kill -KILL "$pid" 2>/dev/null || true
    done
    findmnt --raw --noheadings --output TARGET | sort --reverse | while read -r mount; do
        [[ $mount != "$folder"/* ]] || umount --lazy "$mount"
    done
    rm -rf "$folder" "$folder.lock"
    pgrep --exact dockerd >/dev/null || rmdir /sys/fs/cgroup/{,*/}docker 2>/dev/null || true  # where they are empty
}

# Whether a process is the engine in that folder, or one of its helpers: all are told in their arguments where it lies.
belongs() {
    local arguments
    arguments=$({ tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null) || return
    [[ $arguments == *"$2/"* && ($arguments == dockerd\ * || $arguments == *containerd*) ]]
}

# Every process of a container is in control groups with its id in their names.
end_container() {
    local pid
    for pid in $(grep --files-with-matches --no-messages "$1" /proc/[0-9]*/cgroup | cut -d / -f 3); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    find /sys/fs/cgroup -depth -type d -name "$1" -exec rmdir {} \; 2>/dev/null || true
}
