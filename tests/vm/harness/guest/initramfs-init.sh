#!/bin/busybox sh
# First program of the guest (busybox): the root is a compressed read-only image on the first disk
# under a file system in memory; what the test brought along (/payload) is laid over it.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /lower /upper /root
$b mount -t proc proc /proc
$b mount -t devtmpfs devtmpfs /dev
while read -r module; do
    $b insmod "/modules/$module" || echo "initramfs: cannot load $module"
done </modules/order
$b mount -t squashfs -o ro /dev/vda /lower || exec $b poweroff -f
$b mount -t tmpfs -o mode=755 tmpfs /upper
$b mkdir /upper/data /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root
$b cp -a /payload/. /root/
$b umount /proc
exec $b switch_root /root /sbin/guest-init
