#!/bin/busybox sh
# The first program inside: lays a tmpfs over the host's root and hands over to the agent, or to systemd.
# Settings: KERNEL_MODULES HOST_NAME MODULES_FOLDER INIT AGENT HOST_FILES, SYSTEMD_UNIT and ADDRESS (empty without systemd
# and without a network), and ROOT_DISK (empty for the host's own root; else its files are below HOST_FILES).

bb=/bin/busybox
. /settings.sh

die() {
	echo "lab-init: $*" # the host looks for this word: booting again would not help
	$bb sleep 0.2
	$bb poweroff -f
}

$bb mount -t devtmpfs dev /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
for module in $KERNEL_MODULES; do
	$bb insmod "/modules/$module" || die "insmod $module"
done

nine=trans=virtio,version=9p2000.L,msize=512000
$bb mkdir /host /over /all
$bb mount -t 9p -o "$nine,cache=loose,ro" root /host || die "cannot mount the host's root"
root=/host
if [ -n "$ROOT_DISK" ]; then
	root=/disk
	$bb mkdir /disk
	$bb mount -t ext4 -o ro,noatime "$ROOT_DISK" /disk || die "cannot mount $ROOT_DISK"
fi
$bb mount -t tmpfs -o size=75%,mode=755 over /over
$bb mkdir /over/upper /over/work
$bb mount -t overlay -o lowerdir=$root,upperdir=/over/upper,workdir=/over/work overlay /all || die "cannot lay the overlay"
for folder in dev proc sys; do
	$bb mkdir -p "/all/$folder"
	$bb mount --move "/$folder" "/all/$folder"
done
$bb mount -t tmpfs -o mode=755 run /all/run
$bb mkdir -p /all/run/lab/out /all/lib/modules
$bb mount -t 9p -o "$nine,cache=none" out /all/run/lab/out || die "cannot mount out"
if [ -n "$ROOT_DISK" ]; then
	$bb mkdir -p "/all$HOST_FILES"
	$bb mount --move /host "/all$HOST_FILES"
fi

# modprobe works inside; a host that boots this very kernel has its own folder already
release=${MODULES_FOLDER##*/}
[ -e "/all/lib/modules/$release" ] || $bb ln -s "$MODULES_FOLDER" "/all/lib/modules/$release"
$bb rm -f /all/.dockerenv # programs would take the guest for a container
$bb hostname "$HOST_NAME"
$bb ip link set lo up
if [ -n "$ADDRESS" ]; then
	$bb ip addr add "$ADDRESS/24" dev eth0 && $bb ip link set eth0 up || die "no network"
fi
[ -z "$SYSTEMD_UNIT" ] || . /systemd.sh
cd /all || die "no root"
# shellcheck disable=SC2086 # INIT is a program and its arguments
exec $bb switch_root /all /usr/bin/env -i HOME=/root LANG=C.UTF-8 "PATH=$GUEST_PATH" $INIT
