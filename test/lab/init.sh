#!/bin/sh
# PID 1 of a lab guest: loads the oracle, starts the workload, then obeys lines from the first serial port.
# Each line gets its answer from the oracle: a table, `DONE line`, or `ERROR reason`. A guest without I/O ports (lab.port=0:
# one of Xen's) has its console for both ways, lab.channel, and tables go there whole.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run

# `option NAME DEFAULT`: the value of lab.NAME= on the kernel's command line
option() {
  value=$2
  for word in $(cat /proc/cmdline); do
    case $word in lab."$1"=*) value=${word#*=} ;; esac
  done
  echo "$value"
}

set_up() { [ ! -w "/proc/sys/kernel/$1" ] || echo "$2" > "/proc/sys/kernel/$1"; }
set_up hung_task_timeout_secs 0
set_up threads-max 100000
set_up kptr_restrict 0
set_up printk_ratelimit 0

port=$(option port 0x502)
channel=/dev/$(option channel ttyS0)
# A kernel that was built for the lab has the oracle in it.
if [ -e /oracle.ko ]; then
  address=$(grep -m1 ' kallsyms_lookup_name$' /proc/kallsyms)
  insmod /oracle.ko kallsyms=0x"${address%% *}" port="$port" com1="$(option com1 0x3f8)" \
    deadline="$(option deadline 120)"
fi

say() { if [ "$port" = 0 ]; then echo "$*" > "$channel"; else echo "say $*" > /proc/oracle; fi; }

mkfifo /run/orders /run/answers
/workload "$(option tasks 40)" "$(option busy "$(grep -c ^processor /proc/cpuinfo)")" <> /run/orders > /run/answers &
exec 4<> /run/answers
exec 5> /run/orders
read -r answer <&4
[ "$answer" = ready ] || say "ERROR workload: $answer"

order() {
  echo "$1" >&5
  read -r answer <&4
}

answer() {
  case $answer in done) say "DONE $1" ;; *) say "ERROR $1: $answer" ;; esac
}

spin=$(option spin off)
order "spin $spin"

exec 3<> "$channel"
stty raw -echo <&3
say READY
while true; do
  IFS= read -r line <&3 || { sleep 1; continue; }
  case $line in
    '') ;; # the byte that ended a freeze
    kallsyms) cat /proc/kallsyms > /proc/oracle_print; say "DONE $line" ;;
    btf) cat /sys/kernel/btf/vmlinux > /proc/oracle_print; say "DONE $line" ;;
    halt) # so that CPUs have a user's task to be halted in
      order 'spin on'
      [ "$port" != 0 ] || { say HALTING; sleep 1; }
      echo halt > /proc/oracle
      order "spin $spin"
      [ "$port" != 0 ] || cat /proc/oracle >&3
      ;;
    spin\ *) order "$line"; spin=${line#spin }; answer "$line" ;;
    tasks\ * | churn\ *) order "$line"; answer "$line" ;;
    panic) say "DONE $line"; echo c > /proc/sysrq-trigger ;;
    reboot) say "DONE $line"; reboot -f ;;
    shell\ *) eval "${line#shell }" > /proc/oracle_print 2>&1; say "DONE $line" ;;
    *) echo "$line" > /proc/oracle ;;
  esac
done
