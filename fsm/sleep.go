package fsm

import "time"

// SleepTimes divides the idle time after which a model gives its memory back. For the first quarter of it the health
// probe may still ask an idle runtime for a token, which starts the runtime's own clock again; the runtime counts the
// rest. So the model sleeps after three quarters of idle at the earliest and after idle at the latest, and no probe
// keeps it awake or wakes it. Zero is never.
func SleepTimes(idle time.Duration) (probes, sleep time.Duration) {
	return idle / 4, idle - idle/4
}
