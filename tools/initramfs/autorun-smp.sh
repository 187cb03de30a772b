# The self-test of a Linux on several CPUs: all online, each with its own tick, under load, unplugged and plugged again.
# `load=N` on the kernel command line, which comes as a variable of init's: how often a job of the load does its work.
. /checks.sh
load=${load:-2}
cpu_dir=/sys/devices/system/cpu

online() { # the CPUs that run now
    grep -c ^processor /proc/cpuinfo
}

list() { # list COUNT: the first so many CPUs as sysfs writes them
    if [ "$1" -eq 1 ]; then echo 0; else echo "0-$(($1 - 1))"; fi
}

ticks() { # ticks CPU: the timer interrupts that it has taken
    awk -v cpu="CPU$1" 'NR == 1 { for (n = 1; n <= NF; n++) if ($n == cpu) column = n + 1 }
        /arch_timer/ && column { print $column; exit }' /proc/interrupts
}

on_cpu() { # on_cpu CPU COMMAND...: there alone
    mask=$(printf %x $((1 << $1))) # taskset reads hexadecimal digits
    shift
    taskset "$mask" "$@"
}

busy_on() { # busy_on CPU: do some work there alone; 1 if it was somewhere else, or wrong
    on_cpu "$1" sh -c 'n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); done
        [ "$(awk "{ print \$39 }" /proc/self/stat)" -eq "$0" ]' "$1"
}

forks() { # some dozen processes, and a sum that must be right
    total=0
    for n in 1 2 3 4 5 6 7 8; do
        total=$((total + $(seq "$n" 40 | tr '\n' ' ' | wc -w)))
    done
    [ $total -eq 292 ]
}

lines_sum=$(seq 100 299 | md5sum)
pipes() { # what goes through them must come out: lines there and back, and more than a pipe holds
    [ "$(seq 100 299 | sort -r | tr 0-9 a-j | tr a-j 0-9 | sort | md5sum)" = "$lines_sum" ] &&
        [ "$(dd if=/dev/zero bs=4k count=32 2>/dev/null | tr '\0' x | cat | wc -c)" -eq 131072 ]
}

centiseconds() { # since boot
    awk '{ printf "%d", $1 * 100 + 0.5 }' /proc/uptime
}

sleeper() { # sleeper CPU: a second there is no less, and not much more
    start=$(centiseconds)
    on_cpu "$1" sleep 1
    slept=$(($(centiseconds) - start))
    [ $slept -ge 100 ] && [ $slept -le 300 ] && echo right >"/tmp/sleeper.$1"
}

job() { # job NUMBER: forks, pipes and short sleeps
    left=$load
    while [ "$left" -gt 0 ]; do
        forks && pipes && sleep "0.0$((1 + $1 % 9))" || return
        left=$((left - 1))
    done
    echo right >"/tmp/job.$1"
}

start_jobs() { # start_jobs COUNT: side by side, in the background
    rm -f /tmp/job.*
    number=0
    while [ $number -lt "$1" ]; do
        job $number &
        number=$((number + 1))
    done
}

all_right() { # all_right KIND COUNT: so many have left their mark
    [ "$(cat /tmp/"$1".* | grep -c right)" -eq "$2" ]
}

echo "AUTORUN: begin"
cpus=$(online)
echo "AUTORUN: $cpus cpu(s)"
[ "$(cat $cpu_dir/online)" = "$(list "$cpus")" ] && [ "$(cat $cpu_dir/possible)" = "$(list "$cpus")" ]
check $? "all CPUs are online"

cpu=0
while [ $cpu -lt "$cpus" ]; do
    before=$(ticks $cpu)
    busy_on $cpu
    check $? "CPU $cpu runs a task of its own"
    on_cpu $cpu sleep 0.05
    [ "$(ticks $cpu)" -gt "$before" ]
    check $? "CPU $cpu takes its own timer interrupts"
    cpu=$((cpu + 1))
done
cat /proc/interrupts

echo "AUTORUN: load"
cpu=0
while [ $cpu -lt "$cpus" ]; do
    ticks $cpu >/tmp/ticks.$cpu
    sleeper $cpu &
    cpu=$((cpu + 1))
done
start_jobs $((2 * cpus))
wait
all_right job $((2 * cpus))
check $? "two jobs a CPU of forks, pipes and sleeps side by side"
all_right sleeper "$cpus"
check $? "sleeps of a second on every CPU beside them take about a second"
cpu=0
while [ $cpu -lt "$cpus" ]; do
    [ "$(ticks $cpu)" -gt "$(cat /tmp/ticks.$cpu)" ]
    check $? "CPU $cpu took timer interrupts under load"
    cpu=$((cpu + 1))
done

# Before CPUs come back: each starts its count anew then, and Linux takes off what it had.
echo "AUTORUN: stolen $(awk '/^cpu / { print $9 }' /proc/stat) ticks"

echo "AUTORUN: hotplug"
start_jobs "$cpus"
cpu=1
while [ $cpu -lt "$cpus" ]; do
    echo 0 >$cpu_dir/cpu$cpu/online
    [ "$(cat $cpu_dir/cpu$cpu/online)" -eq 0 ] && [ "$(online)" -eq $((cpus - 1)) ] && forks
    check $? "CPU $cpu goes offline, and the others work on"
    echo 1 >$cpu_dir/cpu$cpu/online
    [ "$(cat $cpu_dir/cpu$cpu/online)" -eq 1 ] && [ "$(online)" -eq "$cpus" ]
    check $? "CPU $cpu comes back"
    before=$(ticks $cpu)
    busy_on $cpu && on_cpu $cpu sleep 0.05 && [ "$(ticks $cpu)" -gt "$before" ]
    check $? "CPU $cpu works again and takes its timer interrupts"
    cpu=$((cpu + 1))
done
wait
all_right job "$cpus"
check $? "a job a CPU beside it, all right"

cpu=1
while [ $cpu -lt "$cpus" ]; do echo 0 >$cpu_dir/cpu$cpu/online; cpu=$((cpu + 1)); done
[ "$(cat $cpu_dir/online)" = 0 ] && forks
check $? "one CPU is enough"
cpu=1
while [ $cpu -lt "$cpus" ]; do echo 1 >$cpu_dir/cpu$cpu/online; cpu=$((cpu + 1)); done
[ "$(online)" -eq "$cpus" ] && forks
check $? "all CPUs are back"

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
