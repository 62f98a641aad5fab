package relay

import (
	"context"
	"errors"
	"os"
	"time"
)

// Ending is a request whose client has left while the runtime worked on it. The runtime notices only some time after
// the connection was shut down here: it looks once a second, and between two steps of the model.
type Ending struct{ up *upstream }

// hangUp shuts down the sending side, which llama-server takes for the client's end, so that the runtime's own end of the
// connection can be seen. It returns nil, and closes the connection, where that is not possible.
func (u *upstream) hangUp() *Ending {
	half, ok := u.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		_ = u.Close()
		return nil
	}
	// The exchange, the request and what has arrived of the answer are no longer needed.
	u.watch = nil
	clear(u.out[:cap(u.out)])
	u.out, u.in = nil, nil
	return &Ending{u}
}

// busyTime is how long a runtime may go on sending after the connection was shut down. One that has not noticed by then
// notices the end only by a write that fails.
const busyTime = 3 * time.Second

// Wait returns when the runtime has closed the connection, when it sends on after busyTime, and at the end of ctx. It
// closes the connection here. What the runtime still sends is dropped. Noticed reports that the runtime has closed the
// connection, or will notice by its next write that it is closed.
func (e *Ending) Wait(ctx context.Context) (noticed bool) {
	defer func() { _ = e.up.Close() }()
	if e.up.SetDeadline(time.Time{}) != nil {
		return false
	}
	// After the deadline was removed, so that it is not removed after ctx has ended.
	defer context.AfterFunc(ctx, func() { _ = e.up.SetDeadline(time.Unix(1, 0)) })()
	dropped := make([]byte, 4<<10)
	for begun := time.Now(); ; {
		if _, err := e.up.Conn.Read(dropped); err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded)
		} else if time.Since(begun) > busyTime {
			return true
		}
	}
}
