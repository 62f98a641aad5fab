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
		var starts []time.Duration
		added := map[string][]time.Duration{}
		for _, row := range regexp.MustCompile(`(?m)^FIGURE (\w+) (\d+) (\d+)$`).FindAllStringSubmatch(text, -1) {
			start, _ := strconv.Atoi(row[2])
			killed, _ := strconv.Atoi(row[3])
			starts = append(starts, time.Duration(start)*time.Millisecond)
			added[row[1]] = append(added[row[1]], time.Duration(killed-start)*time.Millisecond)
		}
		if fmt.Sprint(len(starts)) != kills {
			b.Fatalf("got %d kills, want %s:\n%s", len(starts), kills, text)
		}
		slices.Sort(starts)
		b.ReportMetric(harness.Median(starts).Seconds()*1e3, "start-ms")
		for signal, all := range added {
			slices.Sort(all)
			b.ReportMetric(all[0].Seconds()*1e3, signal+"-min-ms")
			b.ReportMetric(harness.Median(all).Seconds()*1e3, signal+"-median-ms")
			b.ReportMetric(all[len(all)-1].Seconds()*1e3, signal+"-max-ms")
		}
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
  SIGNAL=$([ $((k % 2)) = 0 ] && echo ABRT || echo KILL)
  kill -$SIGNAL $P
  available $P || exit 1
  echo "FIGURE $SIGNAL $START $(( $(now) - T ))"
done
$COMPANION service uninstall
exit 0
`
