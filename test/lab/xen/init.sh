#!/bin/busybox sh
# PID 1 of the lab's dom0: what Xen's tools need, then scripts from the host, one at a time: /lab/in/N is run, its output
# and its exit code are left in /lab/out.
for folder in /usr/lib/xen-[0-9]*/bin; do xen=$folder; done
export PATH=$xen:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
[ ! -f /libvmi ] || export LD_LIBRARY_PATH=$(dirname "$(cat /libvmi)") # there is no ld.so.cache
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /run/xen /run/xenstored /run/lock /var/lib/xen /var/log/xen
hostname dom0
ip link set lo up

while read -r module; do insmod "$module" || echo "insmod $module failed"; done < /modules
mount -t xenfs xenfs /proc/xen
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 lab /lab || echo 'no folder of the host'

oxenstored --pid-file /run/oxenstored.pid > /lab/xenstored 2>&1
for try in 1 2 3 4 5 6 7 8 9 10; do
  xenstore-exists / 2> /dev/null && break
  sleep 1
done
xen-init-dom0 > /lab/init-dom0 2>&1
xenconsoled --log=guest --log-dir=/lab/console --pid-file=/run/xenconsoled.pid

echo "$(xl info 2>&1)" > /lab/info
mv /lab/info /lab/ready
while true; do
  for script in /lab/in/*; do
    [ -f "$script" ] || continue
    name=${script##*/}
    mv "$script" /tmp/script
    sh /tmp/script > "/lab/out/$name.out" 2> "/lab/out/$name.err" < /dev/null
    echo $? > "/lab/out/$name.new"
    mv "/lab/out/$name.new" "/lab/out/$name.code"
  done
  sleep 0.2
done
