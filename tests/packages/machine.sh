#!/bin/sh
# Makes a copy of this machine out of nothing but an overlay, and is its first process: `machine.sh DIR`, in a mount and
# a process namespace of its own. DIR is the one folder that the copy shares with the machine. All of the copy, with its
# processes, goes when this one ends.
set -e
dir=$1
mount --make-rprivate /
mkdir "$dir/machine"
mount -t tmpfs tmpfs "$dir/machine"
cd "$dir/machine"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount -t tmpfs -o mode=755 tmpfs root/run
mkdir -p "root$dir"
mount --bind "$dir" "root$dir"
# What other tests, or an administrator, have here of ours; and the word of containers that nothing may be started.
rm -rf root/var/log/nodepool root/etc/nodepool root/usr/sbin/policy-rc.d
# A machine whose init runs init scripts says so.
rm -f root/usr/sbin/runlevel
printf '#!/bin/sh\necho N 2\n' >root/usr/sbin/runlevel
chmod 755 root/usr/sbin/runlevel
find upper -mindepth 1 | sort >"$dir/changed-at-first"
# A process whose parent has ended becomes a child of this one, and has to be reaped.
# shellcheck disable=SC2016 # for the inner shell
exec chroot root /bin/sh -c ': >"$1/machine-is-ready"; while :; do sleep 3600 & wait; done' machine "$dir"
