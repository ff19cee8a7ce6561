#!/bin/sh
# Process 1 of the guest: what LVM and a network need, then the agent. It stays to reap orphans.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock/lvm /run/lvm /run/sshd /etc/lvm/archive /etc/lvm/backup
. /etc/guest.conf
hostname "$GUEST_NAME"
modprobe -a virtio_console virtio_net dm-thin-pool dm-snapshot loop
ip link set lo up
if [ -n "$GUEST_ADDRESS" ] && [ -e /sys/class/net/eth0 ]; then
    ip addr add "$GUEST_ADDRESS" dev eth0
    ip link set eth0 up
fi
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --subsystem-match=block --subsystem-match=misc
udevadm settle
python3 /usr/lib/guest/agent.py &
wait $!
echo "guest-init: the agent ended"
poweroff -f 2>/dev/null || echo o >/proc/sysrq-trigger
