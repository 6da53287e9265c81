# Sourced by init.sh when systemd is to be PID 1: the agent as a unit beside SYSTEMD_UNIT, and what would only cost
# time or harm masked.  /run wins over /etc, so the host's own units stay untouched.

units=/all/run/systemd/system
$bb mkdir -p $units /all/run/tmpfiles.d
$bb ln -s /dev/null /all/run/tmpfiles.d/tmp.conf # it empties /tmp, and the checkout may be there

$bb cat >$units/lab.target <<UNIT
[Unit]
Requires=$SYSTEMD_UNIT lab-agent.service
After=$SYSTEMD_UNIT
AllowIsolate=yes
UNIT

$bb cat >$units/lab-agent.service <<UNIT
[Unit]
DefaultDependencies=no
After=$SYSTEMD_UNIT
[Service]
Environment=HOME=/root LANG=C.UTF-8 PATH=$GUEST_PATH
ExecStart=$AGENT
KillMode=process
Restart=always
UNIT

for unit in \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer logrotate.timer \
	man-db.timer systemd-tmpfiles-clean.timer numad.service prometheus.service \
	systemd-udevd.service systemd-udev-trigger.service systemd-hwdb-update.service \
	systemd-timesyncd.service systemd-random-seed.service systemd-update-utmp.service \
	systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-modules-load.service \
	kmod-static-nodes.service systemd-remount-fs.service systemd-machine-id-commit.service systemd-journal-flush.service ldconfig.service \
	systemd-ask-password-console.path systemd-ask-password-wall.path \
	proc-sys-fs-binfmt_misc.automount dev-hugepages.mount; do
	$bb ln -s /dev/null "$units/$unit"
done
