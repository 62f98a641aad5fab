//go:build !faults

package supervisor

import (
	"github.com/thejerf/suture/v4"
	"go.uber.org/zap"
)

// instrument returns the actor unchanged. A build with the tag "faults" can make it fail on demand.
func instrument(actor suture.Service) suture.Service { return actor }

// instrumentLog returns the logger unchanged. A build with the tag "faults" can make an actor fail when it
// logs.
func instrumentLog(logger *zap.Logger) *zap.Logger { return logger }
