//go:build linux

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"companion/e2e/harness"
)

// BenchmarkServiceKilled prints how much longer than the runtime's own start it takes until a service is available again
// that was killed by SIGKILL, or by SIGABRT as the watchdog does. Both alternate with a start of the runtime alone, in one
// run. At most 2 s. SERVICE_KILLS=20 kills twenty times (default 4).
func BenchmarkServiceKilled(b *testing.B) {
	kills := os.Getenv("SERVICE_KILLS")
	if kills == "" {
		kills = "4"
	}
	for range b.N {
		text, _ := underUserManager(b, killScript, "KILLS="+kills)
		var starts, added []time.Duration
		for _, row := range regexp.MustCompile(`(?m)^FIGURE (\d+) (\d+)$`).FindAllStringSubmatch(text, -1) {
			start, _ := strconv.Atoi(row[1])
			killed, _ := strconv.Atoi(row[2])
			starts = append(starts, time.Duration(start)*time.Millisecond)
			added = append(added, time.Duration(killed-start)*time.Millisecond)
		}
		if fmt.Sprint(len(added)) != kills {
			b.Fatalf("got %d kills, want %s:\n%s", len(added), kills, text)
		}
		slices.Sort(starts)
		slices.Sort(added)
		b.ReportMetric(harness.Median(starts).Seconds()*1e3, "start-ms")
		b.ReportMetric(added[0].Seconds()*1e3, "added-min-ms")
		b.ReportMetric(harness.Median(added).Seconds()*1e3, "added-median-ms")
		b.ReportMetric(added[len(added)-1].Seconds()*1e3, "added-max-ms")
	}
}

const killScript = `
now() { date +%s%3N; }
$COMPANION service install
answers; BROWSER=$OPENER $COMPANION login
$COMPANION status --wait --timeout 3m >/dev/null || exit 1
available() { # again, in another process than $1
  for i in $(seq 3000); do
    P=$(main)
    [ "$P" != "$1" ] && [ "$P" != 0 ] && $COMPANION status --exit-code >/dev/null 2>&1 && return 0
    sleep 0.02
  done
  return 1
}
for k in $(seq $KILLS); do
  $COMPANION stop
  T=$(now); $COMPANION start --wait >/dev/null; START=$(( $(now) - T ))
  P=$(main); T=$(now)
  if [ $((k % 2)) = 0 ]; then kill -ABRT $P; else kill -KILL $P; fi
  available $P || exit 1
  echo "FIGURE $START $(( $(now) - T ))"
done
$COMPANION service uninstall
exit 0
`
