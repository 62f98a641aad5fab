package spawn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"companion/adapters/peer"
	"companion/messages"
)

// ErrNotOurChild marks the Error of a back end that another process serves, or whose socket other users can reach (R3).
// It must not be used.
var ErrNotOurChild = errors.New("the back end is not the child that was started")

// Health requests /health of the back end, and returns nil when the answer is 200 and comes from the process pid. Any
// other outcome is an *Error with ReasonBackendUnreachable.
func Health(ctx context.Context, b messages.BackEnd, pid int) error {
	if err := health(ctx, b, pid); err != nil {
		return &Error{Reason: messages.ReasonBackendUnreachable, Doing: "asking the back end", Err: err}
	}
	return nil
}

func health(ctx context.Context, b messages.BackEnd, pid int) error {
	if err := checkAddress(b); err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, b.Network, b.Address)
			if err != nil {
				return nil, errors.New("no process listens yet")
			}
			if err := peer.Check(conn, pid); err != nil {
				if errors.Is(err, peer.ErrOtherProcess) {
					err = fmt.Errorf("%w: %w", ErrNotOurChild, err)
				}
				return nil, errors.Join(err, conn.Close())
			}
			return conn, nil
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://back-end/health", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16))
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %d", response.StatusCode)
	}
	return nil
}
