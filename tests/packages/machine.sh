#!/bin/sh
# Makes a copy of this machine out of nothing but an overlay, and is its first process: `machine.sh DIR INIT`, in mount,
# process and host name namespaces of its own. DIR is the one folder that the copy shares with the machine. INIT is
# `scripts`, where init scripts are run by hand, or `systemd`, which then is the first process. All of the copy, with its
# processes, goes when that one ends.
set -e
dir=$1
init=$2
mount --make-rprivate /
mkdir "$dir/machine"
mount -t tmpfs tmpfs "$dir/machine"
cd "$dir/machine"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc
mount -t tmpfs -o mode=755 tmpfs root/run
mkdir -p "root$dir"
mount --bind "$dir" "root$dir"
# What other tests, or an administrator, have here of ours; and the word of containers that nothing may be started.
rm -rf root/var/log/nodepool root/etc/nodepool root/usr/sbin/policy-rc.d
# Each installation would have all manual pages of the machine listed anew.
rm -f root/var/lib/man-db/auto-update

if [ "$init" = scripts ]; then
    mount --rbind /dev root/dev
    # A machine whose init runs init scripts says so.
    rm -f root/usr/sbin/runlevel
    printf '#!/bin/sh\necho N 2\n' >root/usr/sbin/runlevel
    chmod 755 root/usr/sbin/runlevel
    find upper -mindepth 1 | sort >"$dir/changed-at-first"
    # A process whose parent has ended becomes a child of this one, and has to be reaped.
    # shellcheck disable=SC2016 # for the inner shell
    exec chroot root /bin/sh -c ': >"$1/machine-is-ready"; while :; do sleep 3600 & wait; done' machine "$dir"
fi

# The kernel's settings are those of all machines.
mount --bind root/proc/sys root/proc/sys
mount -o remount,bind,ro root/proc/sys
mount -t sysfs -o ro sysfs root/sys
mount -t tmpfs -o mode=755 tmpfs root/dev
for device in null zero full random urandom tty; do
    cp -a "/dev/$device" root/dev
done
ln -s /proc/self/fd root/dev/fd
# Whoever gets a /dev of its own by PrivateDevices= gets these, too.
mkdir root/dev/pts root/dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts root/dev/pts
ln -s pts/ptmx root/dev/ptmx
mount -t tmpfs tmpfs root/dev/shm
# Nothing of this machine's own runs there but systemd, its journal, and what a test starts.
rm -rf root/etc/systemd/system/*.wants root/usr/lib/systemd/system/*.wants root/lib/systemd/system/*.wants
for unit in systemd-journald-audit.socket systemd-remount-fs.service; do
    ln -sf /dev/null "root/etc/systemd/system/$unit"
done
cat >root/etc/systemd/system/machine.target <<end
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service machine-is-ready.service
end
cat >root/etc/systemd/system/machine-is-ready.service <<end
[Unit]
DefaultDependencies=no
After=systemd-journald.service
[Service]
ExecStart=/bin/touch $dir/machine-is-ready
end
find upper -mindepth 1 | sort >"$dir/changed-at-first"
# A control group of its own, wherever the machine has mounted them, with those below it as all that there are.
mkdir groups
mount -t cgroup2 cgroup2 groups
group=$(mktemp -d groups/nodepool-test.XXXXXX)
echo "${group#groups/}" >"$dir/group"
echo 0 >"$group/cgroup.procs"
# shellcheck disable=SC2016 # for the inner shell
exec unshare --cgroup /bin/sh -c 'mount -t cgroup2 cgroup2 root/sys/fs/cgroup
    exec env -i container=other PATH="$PATH" chroot root /lib/systemd/systemd --unit=machine.target </dev/null'
