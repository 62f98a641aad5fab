package lane

import (
	_ "embed"
	"slices"
	"strings"
	"testing"

	"companion/messages"
)

//go:embed testdata/consent.txt
var consentTable string

// consentRow is one row of testdata/consent.txt.
type consentRow struct {
	lanes   []string
	columns [7]string
	verdict messages.Reason
}

func (r consentRow) matches(name string, columns [7]string) bool {
	if !slices.Contains(r.lanes, name) {
		return false
	}
	for i, want := range r.columns {
		if want != "*" && want != columns[i] {
			return false
		}
	}
	return true
}

func consentRows(t *testing.T) []consentRow {
	t.Helper()
	var rows []consentRow
	for line := range strings.Lines(consentTable) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 9 {
			t.Fatalf("got %d columns in %q, want 9", len(fields), line)
		}
		row := consentRow{lanes: strings.Split(fields[0], ","), verdict: messages.Reason(fields[8])}
		if fields[0] == "managed" {
			row.lanes = []string{"self_hosted", "enterprise", "openrouter", "direct_provider"}
		}
		copy(row.columns[:], fields[1:8])
		rows = append(rows, row)
	}
	return rows
}

// E4: every combination of lane, delegate, partition, purpose, privacy, consent id and permissions gets the verdict of a
// table that was written from the contract.
func TestConsentTable(t *testing.T) {
	rows := consentRows(t)
	lanes := map[string]Lane{"unknown": "cheap"}
	for _, l := range All {
		lanes[string(l)] = l
	}
	ids := map[string][]string{"id": {"c1", " c1 "}, "blank": {"", " ", "\t\n"}}
	yes := map[bool]string{true: "y", false: "n"}
	checked := 0
	for name, l := range lanes {
		for bits := range 1 << 6 {
			on := func(i int) bool { return bits>>i&1 == 1 }
			for column, consentIDs := range ids {
				columns := [7]string{yes[on(0)], yes[on(1)], yes[on(2)], yes[on(3)], column, yes[on(4)], yes[on(5)]}
				var matched []consentRow
				for _, row := range rows {
					if row.matches(name, columns) {
						matched = append(matched, row)
					}
				}
				if len(matched) != 1 {
					t.Fatalf("lane %s, %v: got %d matching rows, want 1", name, columns, len(matched))
				}
				for _, id := range consentIDs {
					got := Consent(Request{
						Lane: l, Delegate: on(0), OwnerPartition: on(1), Enriching: on(2), Private: on(3), ConsentID: id,
						Permissions: Permissions{Managed: on(4), Enrich: on(5)},
					})
					if got != matched[0].verdict {
						t.Errorf("lane %s, %v, consent id %q: got %s, want %s", name, columns, id, got, matched[0].verdict)
					}
					checked++
				}
			}
		}
	}
	if want := 7 * 64 * 5; checked != want {
		t.Errorf("got %d combinations, want %d", checked, want)
	}
}
