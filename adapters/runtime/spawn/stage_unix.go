//go:build unix

package spawn

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func readPlan() (plan, error) {
	f := os.NewFile(planFD, "plan")
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	var p plan
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return p, fmt.Errorf("reading the plan: %w", err)
	}
	return p, nil
}
