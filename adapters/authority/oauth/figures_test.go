package oauth

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkCrowdedCallback measures how long the browser of the user takes from the start page to the page after the callback,
// alone and while another process holds 1 000 idle connections and sends 1 000 requests to the callback path (O2, O3). It alternates.
func BenchmarkCrowdedCallback(b *testing.B) {
	h, c := newHub(b)
	var alone, crowded []time.Duration
	for b.Loop() {
		alone = append(alone, callbackTime(b, h, c, 0))
		crowded = append(crowded, callbackTime(b, h, c, 1000))
	}
	for name, times := range map[string][]time.Duration{"alone": alone, "crowded": crowded} {
		slices.Sort(times)
		b.ReportMetric(float64(times[0].Microseconds())/1000, name+"-min-ms")
		b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, name+"-median-ms")
		b.ReportMetric(float64(times[len(times)-1].Microseconds())/1000, name+"-max-ms")
	}
	b.ReportMetric(float64(crowded[len(crowded)/2])/float64(alone[len(alone)/2]), "crowded/alone")
	b.ReportMetric(0, "ns/op")
}

func callbackTime(b *testing.B, h *hub, c *Client, crowd int) (took time.Duration) {
	b.Helper()
	_, shown, err := signIn(b, h, c, func(a *Attempt) string {
		for range crowd {
			conn, err := net.Dial("tcp", a.host)
			if err != nil {
				b.Error(err)
				break
			}
			defer conn.Close()
		}
		var hostile sync.WaitGroup
		defer hostile.Wait()
		for range min(crowd, 20) {
			hostile.Go(func() {
				for range crowd / 20 {
					h.browse(a.redirectURI + "?code=c&state=x")
				}
			})
		}
		began := time.Now()
		_, _, body := h.browse(a.Page().URL)
		took = time.Since(began)
		return body
	})
	if err != nil || shown != signedInPage {
		b.Fatalf("with %d idle connections and as many requests: got %v, page %q; want the signed-in page", crowd, err, shown)
	}
	return took
}
