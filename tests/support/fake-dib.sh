#!/bin/sh
# A stand-in for diskimage-builder's disk-image-create:
#   fake-dib -x -t FORMATS --checksum --no-tmpfs [--qemu-img-options X] -o OUT ELEMENTS...
# It prints its arguments and some of its environment, then writes OUT.d and, per format, OUT.FORMAT,
# OUT.FORMAT.md5 and OUT.FORMAT.sha256. An argument that it does not know ends it with code 64.
#
# The image's env-vars choose what else it does, in this order:
#   FAKE_DIB_STARTED=FILE      writes its pid to FILE (complete at once) when it begins
#   FAKE_DIB_IGNORE_TERM=1     ignores SIGTERM, and so do its children
#   FAKE_DIB_CHILD=FILE        starts a child that sleeps for 300 s and writes the child's pid to FILE
#   FAKE_DIB_OUTPUT_MB=N       prints N megabytes as fast as it can
#   FAKE_DIB_WAIT_FOR=FILE     waits until FILE exists; gives up with code 65 after 300 s
#   FAKE_DIB_SLEEP=SECONDS     sleeps
#   FAKE_DIB_FAIL=CODE         leaves OUT.d and half of the first format behind and exits with CODE
#   FAKE_DIB_NO_FORMAT=FORMAT  leaves that format's files out, and exits with 0 all the same
#   FAKE_DIB_NO_CHECKSUM=1     leaves the checksum files out
#   FAKE_DIB_QCOW2_MB=N        makes the format qcow2 a real one, with N megabytes of random bytes in it
#   FAKE_DIB_SIZE_MB=N         makes each image N megabytes of zeros; otherwise it is a line of text
set -u

echo "fake-dib: arguments: $*"
env | grep -E '^(DIB_|ELEMENTS_PATH=|FAKE_DIB_|GLIBC_TUNABLES=)' | sort | sed 's/^/fake-dib: environment: /'

formats= out= checksum= elements=
while [ $# -gt 0 ]; do
    case $1 in
    -x | --no-tmpfs) ;;
    --checksum) checksum=1 ;;
    -t) formats=$2 && shift ;;
    -o) out=$2 && shift ;;
    --qemu-img-options) shift ;;
    -*) echo "fake-dib: unknown option $1" >&2 && exit 64 ;;
    *) elements="$elements $1" ;;
    esac
    shift
done
[ -n "$formats" ] && [ -n "$out" ] || { echo "fake-dib: -t and -o are needed" >&2 && exit 64; }

# A reader never sees half a file.
put() {
    printf '%s\n' "$2" >"$1.$$" && mv "$1.$$" "$1"
}

[ -z "${FAKE_DIB_STARTED:-}" ] || put "$FAKE_DIB_STARTED" $$
[ -z "${FAKE_DIB_IGNORE_TERM:-}" ] || trap '' TERM
if [ -n "${FAKE_DIB_CHILD:-}" ]; then
    sleep 300 &
    put "$FAKE_DIB_CHILD" $!
fi
if [ -n "${FAKE_DIB_OUTPUT_MB:-}" ]; then
    yes 'fake-dib: a line like those that a package manager writes by the thousand while an image is built' |
        head -c "$((FAKE_DIB_OUTPUT_MB * 1048576))"
    echo
fi
if [ -n "${FAKE_DIB_WAIT_FOR:-}" ]; then
    echo "fake-dib: waits for $FAKE_DIB_WAIT_FOR"
    tries=0
    until [ -e "$FAKE_DIB_WAIT_FOR" ]; do
        tries=$((tries + 1))
        # Also when the sandbox was removed under us.
        [ $tries -lt 6000 ] && [ -d "$(dirname "$FAKE_DIB_WAIT_FOR")" ] || exit 65
        sleep 0.05
    done
fi
if [ -n "${FAKE_DIB_SLEEP:-}" ]; then
    echo "fake-dib: sleeps for $FAKE_DIB_SLEEP s"
    sleep "$FAKE_DIB_SLEEP"
fi

mkdir -p "$out.d"
echo "$elements" >"$out.d/elements"
if [ -n "${FAKE_DIB_FAIL:-}" ]; then
    printf 'half an im' >"$out.${formats%%,*}"
    echo "fake-dib: fails with $FAKE_DIB_FAIL"
    exit "$FAKE_DIB_FAIL"
fi

for format in $(echo "$formats" | tr , ' '); do
    [ "$format" != "${FAKE_DIB_NO_FORMAT:-}" ] || continue
    image=$out.$format
    if [ "$format" = qcow2 ] && [ -n "${FAKE_DIB_QCOW2_MB:-}" ]; then
        # Random, so that nothing on its way can make it smaller.
        head -c "$((FAKE_DIB_QCOW2_MB * 1048576))" /dev/urandom >"$image.raw" &&
            qemu-img convert -f raw -O qcow2 "$image.raw" "$image" && rm "$image.raw" || exit 66
    elif [ -n "${FAKE_DIB_SIZE_MB:-}" ]; then
        head -c "$((FAKE_DIB_SIZE_MB * 1048576))" /dev/zero >"$image"
    else
        echo "an image in the format $format with$elements" >"$image"
    fi
    if [ -n "$checksum" ] && [ -z "${FAKE_DIB_NO_CHECKSUM:-}" ]; then
        md5sum "$image" >"$image.md5"
        sha256sum "$image" >"$image.sha256"
    fi
    echo "fake-dib: wrote $image"
done
