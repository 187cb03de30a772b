# What every self-test uses: numbered checks, and the verdict line at the end.
failed=0
count=0
check() { # check STATUS SENTENCE
    count=$((count + 1))
    if [ "$1" -eq 0 ]; then echo "ok - $2"; else echo "FAIL - $2"; failed=$((failed + 1)); fi
}

verdict() {
    if [ $failed -eq 0 ]; then
        echo "VERDICT: PASS ($count checks)"
    else
        echo "VERDICT: FAIL ($failed of $count checks)"
    fi
}
