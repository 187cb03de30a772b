# The self-test of a Linux on several CPUs: all online, each with its own tick, under load, unplugged and plugged again.
. /checks.sh
cpu_dir=/sys/devices/system/cpu

online() { # the CPUs that run now
    grep -c ^processor /proc/cpuinfo
}

ticks() { # ticks CPU: the timer interrupts that it has taken
    awk -v cpu="CPU$1" 'NR == 1 { for (n = 1; n <= NF; n++) if ($n == cpu) column = n + 1 }
        /arch_timer/ && column { print $column; exit }' /proc/interrupts
}

work() { # some hundred forks, pipes and a sum that must be right
    total=0
    for n in 1 2 3 4 5 6 7 8; do
        total=$((total + $(seq "$n" 40 | tr '\n' ' ' | wc -w)))
    done
    [ $total -eq 292 ]
}

busy_on() { # busy_on CPU: do some work there alone; 1 if it was somewhere else, or wrong
    taskset $((1 << $1)) sh -c 'n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); done
        [ "$(awk "{ print \$39 }" /proc/self/stat)" -eq "$0" ]' "$1"
}

echo "AUTORUN: begin"
cpus=$(online)
echo "AUTORUN: $cpus cpu(s)"
[ "$(cat $cpu_dir/online)" = "0-$((cpus - 1))" ] && [ "$(cat $cpu_dir/possible)" = "0-$((cpus - 1))" ]
check $? "all CPUs are online"

cpu=0
while [ $cpu -lt "$cpus" ]; do
    before=$(ticks $cpu)
    busy_on $cpu
    check $? "CPU $cpu runs a task of its own"
    taskset $((1 << cpu)) sleep 0.05
    [ "$(ticks $cpu)" -gt "$before" ]
    check $? "CPU $cpu takes its own timer interrupts"
    cpu=$((cpu + 1))
done
cat /proc/interrupts

echo "AUTORUN: load"
for job in 1 2 3 4 5 6 7 8; do
    (work && echo right >/tmp/work.$job) &
done
wait
[ "$(cat /tmp/work.* | grep -c right)" -eq 8 ]
check $? "eight jobs of forks and pipes side by side"

before=$(cut -d. -f1 /proc/uptime)
for job in 1 2 3 4 5 6 7 8; do
    sleep 1 &
done
wait
after=$(cut -d. -f1 /proc/uptime)
[ $((after - before)) -ge 1 ] && [ $((after - before)) -le 3 ]
check $? "eight sleeps of a second take about a second"

echo "AUTORUN: hotplug"
cpu=1
while [ $cpu -lt "$cpus" ]; do
    echo 0 >$cpu_dir/cpu$cpu/online
    [ "$(cat $cpu_dir/cpu$cpu/online)" -eq 0 ] && [ "$(online)" -eq $((cpus - 1)) ] && work
    check $? "CPU $cpu goes offline, and the others work on"
    echo 1 >$cpu_dir/cpu$cpu/online
    [ "$(cat $cpu_dir/cpu$cpu/online)" -eq 1 ] && [ "$(online)" -eq "$cpus" ]
    check $? "CPU $cpu comes back"
    before=$(ticks $cpu)
    busy_on $cpu && taskset $((1 << cpu)) sleep 0.05 && [ "$(ticks $cpu)" -gt "$before" ]
    check $? "CPU $cpu works again and takes its timer interrupts"
    cpu=$((cpu + 1))
done

cpu=1
while [ $cpu -lt "$cpus" ]; do echo 0 >$cpu_dir/cpu$cpu/online; cpu=$((cpu + 1)); done
[ "$(cat $cpu_dir/online)" = 0 ] && work
check $? "one CPU is enough"
cpu=1
while [ $cpu -lt "$cpus" ]; do echo 1 >$cpu_dir/cpu$cpu/online; cpu=$((cpu + 1)); done
[ "$(online)" -eq "$cpus" ] && work
check $? "all CPUs are back"

echo "AUTORUN: stolen $(awk '/^cpu / { print $9 }' /proc/stat) ticks"
if [ -e /sys/class/rtc/rtc0/wakealarm ]; then
    alarms() { awk '/rtc-pl031/ { for (n = 2; n <= NF && $n ~ /^[0-9]+$/; n++) sum += $n; print sum }' /proc/interrupts; }
    before=$(alarms)
    echo +2 >/sys/class/rtc/rtc0/wakealarm
    sleep 1
    [ "$(alarms)" -eq "$before" ]
    check $? "the alarm of the real-time clock is not early"
    sleep 2
    [ "$(alarms)" -eq $((before + 1)) ]
    check $? "the alarm of the real-time clock rings once"
fi
echo "AUTORUN: date $(date -u +%Y-%m-%dT%H:%M)"
verdict
