package frontdoor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The same question and the same answer in the forms of the other two families.
const (
	benchResponses = `{"model":"gemma","input":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Say hello to the world, please."}],"max_output_tokens":16,"temperature":0.7}`
	benchMessages  = `{"model":"gemma","system":"You are helpful.","messages":[{"role":"user","content":"Say hello to the world, please."}],"max_tokens":16,"temperature":0.7}`
)

var (
	benchResponse = `{"completed_at":1,"created_at":1,"id":"resp_1","model":"gemma","object":"response","output":[{"content":[{"type":"output_text","annotations":[],"logprobs":[],"text":"` +
		strings.Repeat("Hello, world. ", 20) + `"}],"id":"msg_1","role":"assistant","status":"completed","type":"message"}],"status":"completed","usage":{"input_tokens":20,"output_tokens":16,"total_tokens":36}}`
	benchMessage = `{"id":"chatcmpl-1","type":"message","role":"assistant","content":[{"type":"text","text":"` + strings.Repeat("Hello, world. ", 20) +
		`"}],"model":"gemma","stop_reason":"end_turn","stop_sequence":null,"usage":{"cache_read_input_tokens":0,"input_tokens":20,"output_tokens":16}}`
)

// BenchmarkFiguresFormats: added p50 over the direct socket, and requests per second at 8 connections, of the other
// formats against chat's; p50 at most 1.1, and requests/s at least 1/1.1. Rounds take turns.
func BenchmarkFiguresFormats(b *testing.B) {
	type route struct {
		name         string
		direct, door target
	}
	var routes []route
	for _, r := range []struct{ path, body, answer string }{
		{routeChat, benchChat, benchAnswer}, {routeResponses, benchResponses, benchResponse}, {routeMessages, benchMessages, benchMessage},
	} {
		direct, _, door := stage(b, r.path, r.body, lean(b, fixedAnswer(r.answer)), nil)
		routes = append(routes, route{r.path, direct, door})
	}
	for b.Loop() {
		const rounds = 7
		added := map[string][]float64{} // ratios of p50
		rates := map[string][]float64{}
		for range rounds {
			p50, rate := map[string]time.Duration{}, map[string]float64{}
			took := map[string]*[2][]time.Duration{}
			clients := map[string][2]*client{}
			for _, r := range routes {
				clients[r.name] = [2]*client{r.direct.dial(b), r.door.dial(b)}
				took[r.name] = new([2][]time.Duration)
			}
			for range 150 {
				for _, r := range routes {
					for i, c := range clients[r.name] {
						for range 20 {
							begin := time.Now()
							c.do(b)
							took[r.name][i] = append(took[r.name][i], time.Since(begin))
						}
					}
				}
			}
			for _, r := range routes {
				for _, c := range clients[r.name] {
					_ = c.c.Close()
				}
				p50[r.name] = quantile(took[r.name][1], 0.5) - quantile(took[r.name][0], 0.5)
				rate[r.name] = r.door.rate(b, 8, 150*time.Millisecond)
			}
			for _, r := range routes[1:] {
				added[r.name] = append(added[r.name], float64(p50[r.name])/float64(p50[routeChat]))
				rates[r.name] = append(rates[r.name], rate[r.name]/rate[routeChat])
			}
		}
		for _, r := range routes[1:] {
			for what, all := range map[string][]float64{"added p50 (must be at most 1.1)": added[r.name], "requests/s (must be at least 0.91)": rates[r.name]} {
				slices.Sort(all)
				b.Logf("%s against chat, %s: min %.2f, median %.2f, max %.2f of %d rounds", r.name, what, all[0], all[len(all)/2], all[len(all)-1], len(all))
			}
			b.ReportMetric(added[r.name][rounds/2], fmt.Sprintf("p50%s_ratio", strings.ReplaceAll(r.name, "/", "_")))
			b.ReportMetric(rates[r.name][rounds/2], fmt.Sprintf("rate%s_ratio", strings.ReplaceAll(r.name, "/", "_")))
		}
	}
}
