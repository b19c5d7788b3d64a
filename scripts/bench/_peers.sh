# Sourced by the scripts beside it, after _environment.sh. Each defines what it takes to measure a peer:
#
#     peer_environment FOLDER PACKAGE...    makes a virtual environment with just these packages ready
#     peer_image PYTHON                     makes an image ready with what rlms wants in it, and sets $peer_image to its name
#
# Both return a failure where that cannot be, and have said why.

# The newest packages with which the server of rlm-runtime works: with mcp 2 it does not start.
runtime_packages=("rlm-runtime[mcp,docker]==2.1.3" mcp==1.30.0 litellm==1.106.2 RestrictedPython==9.0)
# It cannot be in the same environment: both are imported as `rlm`.
rlms_packages=(rlms==0.1.3)
dspy_packages=(dspy==3.4.1)

peer_environment() {
    local folder=$1 wanted="peer environment of $root: ${*:2}"
    if [[ ! -x $folder/bin/python || $(cat "$folder/rlm-stamp" 2>&1) != "$wanted" ]]; then
        echo "Preparing $folder ..." >&2
        rm -rf "$folder" && mkdir -p "$folder" && install "$folder" "${@:2}" >&2 || return
        echo "$wanted" >"$folder/rlm-stamp"
    fi
}

# rlms installs dill and requests in each new container. Where containers have no network, that works only if they are there.
peer_image() {
    local base=$RLM_TEST_DOCKER_IMAGE recipe work
    peer_image=rlm-bench-peer:local
    recipe="$(docker image inspect --format '{{.Id}}' "$base") dill requests" || return
    [[ $(docker image inspect --format '{{index .Config.Labels "rlm.recipe"}}' "$peer_image" 2>&1) != "$recipe" ]] || return 0
    echo "Building the image $peer_image ..." >&2
    work=$(mktemp --directory) || return
    peer_image_in "$work" "$1" "$base" "$recipe" >"$work.log" 2>&1 || { tail -n 5 "$work.log" >&2; false; }
    local status=$?
    rm -rf "$work" "$work.log"
    return "$status"
}

peer_image_in() {
    "$2" -m pip download --disable-pip-version-check --dest "$1/wheels" --only-binary=:all: --platform any \
        --implementation py --abi none --python-version 3.9 dill requests || return
    cat >"$1/Dockerfile" <<END
FROM $3
COPY wheels /wheels
RUN python3 -m venv /opt/peer && /opt/peer/bin/pip install --no-index --find-links /wheels dill requests
ENV PATH=/opt/peer/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
END
    docker build --network none --label "rlm.recipe=$4" --tag "$peer_image" "$1"
}
