package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const pollEvery = 200 * time.Millisecond

// status is the part of `status --json` (cli.md) that the demonstration reads.
type status struct {
	PID       int    `json:"pid"`
	Available bool   `json:"companionAvailable"`
	Reason    string `json:"reason"`
	Facts     struct {
		Verified bool `json:"verified"`
	} `json:"facts"`
	FrontDoor struct {
		BaseURL string `json:"baseURL"`
	} `json:"frontDoor"`
	Runtime struct {
		PID     int `json:"pid"`
		Sandbox struct {
			Landlock int  `json:"landlock"`
			Seccomp  bool `json:"seccomp"`
		} `json:"sandbox"`
	} `json:"runtime"`
	Manifest struct {
		Version int64     `json:"version"`
		Expires time.Time `json:"expires"`
	} `json:"manifest"`
}

// await reads the status until wanted returns true. If c is not nil, it must keep running.
func (d *demo) await(ctx context.Context, limit time.Duration, c *child, wanted func(status) bool) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var ended <-chan struct{}
	if c != nil {
		ended = c.ended
	}
	var s status
	for {
		out, err := d.companion(ctx, "status", "--json")
		if json.Unmarshal(out, &s) == nil && wanted(s) {
			return s, nil
		}
		select {
		case <-ended:
			return s, c.failure()
		case err := <-d.died:
			return s, err
		case <-ctx.Done():
			return s, errors.Join(fmt.Errorf("the wait of %s is over: the last reason is %q", limit, s.Reason), err)
		case <-time.After(pollEvery):
		}
	}
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}
