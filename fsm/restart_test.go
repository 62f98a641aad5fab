package fsm

import (
	"slices"
	"testing"
	"time"
)

// R11: the first ten ends with requests inside are followed by a start at once. After them the pause begins with a second and
// doubles up to half a minute. Ends that are an hour old do not count, and the caller's slice stays as it was.
func TestRequestDeath(t *testing.T) {
	start := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	want := append(make([]time.Duration, 10), time.Second, 2*time.Second, 4*time.Second, 8*time.Second, 16*time.Second,
		30*time.Second, 30*time.Second, 30*time.Second)
	var ends []time.Time
	for i, pause := range want {
		before := slices.Clone(ends)
		recent, got := RequestDeath(ends, start.Add(time.Duration(i)*time.Second))
		if got != pause {
			t.Errorf("end %d: got a pause of %v, want %v", i+1, got, pause)
		}
		if !slices.Equal(before, ends) || len(recent) != i+1 {
			t.Errorf("end %d: got %d ends and %d in the given slice, want %d and %d", i+1, len(recent), len(ends), i+1, len(before))
		}
		ends = recent
	}
	for age, want := range map[time.Duration]int{
		RequestDeathWindow: len(ends), RequestDeathWindow - time.Nanosecond: len(ends) + 1,
	} { // by the age of the oldest end
		recent, _ := RequestDeath(ends, start.Add(age))
		if len(recent) != want {
			t.Errorf("oldest end %v old: got %d ends, want %d", age, len(recent), want)
		}
	}
	if RequestDeaths != 10 || RequestDeathWindow != time.Hour {
		t.Errorf("got %d ends in %v without a pause, want 10 in 1h", RequestDeaths, RequestDeathWindow)
	}
}
