//go:build !faults

package supervisor

import "github.com/thejerf/suture/v4"

// instrument gives the actor as it is; a build with the tag "faults" can make it fail on demand.
func instrument(actor suture.Service) suture.Service { return actor }
