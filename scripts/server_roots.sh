#!/bin/sh
# Makes the Debian systems in which other versions of the servers are installed, for `make versions`. Needs root and Debian's debootstrap.
#
#   scripts/server_roots.sh          make what is missing; then print for each version a folder with its programs, which may be in
#                                    UMBEL_TEST_BINARIES: they run inside, as the user that UMBEL_AS names (uid:gid)
#   scripts/server_roots.sh --away   undo the mounts, and remove them
#
# They lie beside the checkout's cache, not in it: about 1.5 GB that `make clean` need not fetch again.
set -eu
folder=${UMBEL_SERVER_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/umbel/roots}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

packages() {
    case $1 in
        bullseye) echo redis-server,postgresql ;; # PostgreSQL 13, the oldest that is supported
        trixie) echo redis-server,valkey-server,postgresql,rabbitmq-server ;; # Redis 8.0, Valkey 8.1, PostgreSQL 17, RabbitMQ 4.0
    esac
}

mounted() {
    grep -q " $1 " /proc/mounts
}

if [ "$(id -u)" != 0 ]; then
    echo "server_roots: needs root, for debootstrap and chroot" >&2
    exit 1
fi

if [ "${1:-}" = --away ]; then
    for root in "$folder"/bullseye "$folder"/trixie; do
        for part in tmp dev proc; do
            if mounted "$root/$part"; then umount "$root/$part"; fi
        done
        rm -rf --one-file-system "$root"
    done
    rm -rf "$folder/bin"
    exit 0
fi

if ! command -v debootstrap >/dev/null; then
    echo "server_roots: debootstrap is not installed. Install it: apt-get install debootstrap" >&2
    exit 1
fi
mkdir -p "$folder"
for suite in bullseye trixie; do
    root=$folder/$suite
    if [ ! -e "$root/.complete" ]; then
        echo "server_roots: installing $suite with $(packages $suite) (a minute or two)" >&2
        rm -rf --one-file-system "$root"
        debootstrap --variant=minbase --include="$(packages $suite)" "$suite" "$root" "$mirror" >"$folder/$suite.log" 2>&1 || {
            tail -n 20 "$folder/$suite.log" >&2
            exit 1
        }
        touch "$root/.complete"
    fi
    # The tests' temporary folders have the same paths inside.
    if ! mounted "$root/tmp"; then mount --bind /tmp "$root/tmp"; fi
    if ! mounted "$root/dev"; then mount --bind /dev "$root/dev"; fi
    if ! mounted "$root/proc"; then mount -t proc proc "$root/proc"; fi
done

# A program of the given root, under the name that the tests call it by.
program() {
    mkdir -p "$folder/bin/$1"
    printf '#!/bin/sh\nexec chroot ${UMBEL_AS:+--userspec=$UMBEL_AS} %s %s "$@"\n' "$folder/$2" "$4" >"$folder/bin/$1/$3"
    chmod +x "$folder/bin/$1/$3"
}
for name in server cli; do
    program redis-8.0 trixie "redis-$name" "/usr/bin/redis-$name"
    program valkey-8.1 trixie "redis-$name" "/usr/bin/valkey-$name"
done
for name in postgres initdb; do
    program postgresql-13 bullseye "$name" "/usr/lib/postgresql/13/bin/$name"
    program postgresql-17 trixie "$name" "/usr/lib/postgresql/17/bin/$name"
done
for name in rabbitmq-server rabbitmqctl; do
    program rabbitmq-4.0 trixie "$name" "/usr/lib/rabbitmq/bin/$name"
done
ls -d "$folder"/bin/*
