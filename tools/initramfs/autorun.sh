# The self-test of a booted Linux: one `ok - ...` or `FAIL - ...` line per check, then a verdict line.
. /checks.sh

echo "AUTORUN: begin"
cat /proc/interrupts
grep -q arch_timer /proc/interrupts
check $? "the architected timer is the tick"

before=$(cut -d. -f1 /proc/uptime)
sleep 1
after=$(cut -d. -f1 /proc/uptime)
[ $((after - before)) -ge 1 ] && [ $((after - before)) -le 3 ]
check $? "sleep 1 takes about a second of guest time"

[ "$(echo one two three | tr ' ' '\n' | sort | tail -n 1)" = two ]
check $? "a pipe of three processes"

got=none
trap 'got=usr1' USR1
kill -USR1 $$
[ $got = usr1 ]
check $? "a signal reaches its handler"

sleep 100 &
kill $!
wait $! 2>/dev/null
[ $? -eq 143 ]
check $? "a child is ended by a signal"

for module in /modules/*.ko; do
    name=$(basename "$module" .ko)
    insmod "$module"
    check $? "insmod $name"
    rmmod "$name"
    check $? "rmmod $name"
done

cpus=$(grep -c ^processor /proc/cpuinfo)
echo "AUTORUN: $cpus cpu(s)"
[ -c /dev/null ] && [ -d /sys/devices/system/cpu/cpu0 ]
check $? "devtmpfs and sysfs are mounted"

verdict
