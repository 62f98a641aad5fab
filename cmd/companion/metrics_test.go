package main

import (
	"bufio"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"

	"companion/messages"
)

// busy is a status in which every family has samples.
func busy() messages.Status {
	s := working()
	at := time.Unix(1700000000, 0)
	s.StartedAt, s.Since = at, at
	s.Manifest = messages.StatusManifest{Version: 1, Expires: &at, CheckedAt: &at}
	s.Transfers = []messages.Transfer{{Name: "a \"model\"\\\nof two lines", Bytes: 1, Total: 2}}
	s.Actors = []messages.ActorView{{Name: "lifecycle", Restarts: 2}}
	s.FrontDoor.Latency = []messages.StatusLatency{{UpToMilliseconds: 100, Count: 3}, {UpToMilliseconds: 1000, Count: 5}}
	s.AvailableSeconds = 12.5
	s.FrontDoor.FirstToken, s.FrontDoor.FirstTokenCount, s.FrontDoor.FirstTokenSumMilliseconds = s.FrontDoor.Latency, 6, 600
	s.FrontDoor.PromptTokens, s.FrontDoor.CompletionTokens, s.FrontDoor.GenerationSeconds = 100, 200, 4
	s.FrontDoor.LatencyCount, s.FrontDoor.LatencySumMilliseconds = 6, 12345
	return s
}

// X11: the Prometheus format parses, holds the values, and has no finding of the linter behind `promtool check metrics`.
func TestMetricsPrometheus(t *testing.T) {
	text := metricsText(busy(), false)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	for _, problem := range problems {
		t.Errorf("%s: got %s, want no problem", problem.Metric, problem.Text)
	}
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := families["companion_requests_total"].GetMetric(); len(got) != 2 || got[0].GetCounter().GetValue()+got[1].GetCounter().GetValue() != 6 {
		t.Errorf("got the requests %v, want the two reasons of the status", got)
	}
	histogram := families["companion_request_duration_seconds"].GetMetric()[0].GetHistogram()
	if histogram.GetSampleCount() != 6 || histogram.GetSampleSum() != 12.345 || len(histogram.GetBucket()) != 3 {
		t.Errorf("got the histogram %v, want 6 requests, 12.345 s and 3 buckets", histogram)
	}
	for name, want := range map[string]float64{
		"companion_available_seconds_total": 12.5, "companion_prompt_tokens_total": 100,
		"companion_generated_tokens_total": 200, "companion_generation_seconds_total": 4,
	} {
		if got := families[name].GetMetric()[0].GetCounter().GetValue(); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if got := families["companion_time_to_first_token_seconds"].GetMetric()[0].GetHistogram(); got.GetSampleCount() != 6 || got.GetSampleSum() != 0.6 {
		t.Errorf("got the times to the first token %v, want 6 in 0.6 s", got)
	}
	if got := families["companion_transfer_size_bytes"].GetMetric()[0].GetLabel()[0].GetValue(); got != busy().Transfers[0].Name {
		t.Errorf("got the label %q, want %q", got, busy().Transfers[0].Name)
	}
}

// X11: the OpenMetrics format follows the specification where it differs: a counter's family has no _total and its
// samples do, info families, and # EOF at the end.
func TestMetricsOpenMetrics(t *testing.T) {
	text := metricsText(busy(), true)
	if !strings.HasSuffix(text, "\n# EOF\n") || strings.Count(text, "# EOF") != 1 {
		t.Errorf("got no single # EOF at the end, want it:\n%s", text)
	}
	kind, name := "", ""
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		if fields := strings.Fields(line); strings.HasPrefix(line, "# TYPE ") {
			name, kind = fields[2], fields[3]
			if kind == "counter" && strings.HasSuffix(name, "_total") {
				t.Errorf("got the counter family %s, want it without _total", name)
			}
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		sample := line[:strings.IndexAny(line, "{ ")]
		suffixes := map[string][]string{"counter": {"_total"}, "gauge": {""}, "info": {"_info"}, "histogram": {"_bucket", "_sum", "_count"}}[kind]
		fits := false
		for _, suffix := range suffixes {
			fits = fits || sample == name+suffix
		}
		if !fits {
			t.Errorf("got the sample %s in the %s family %s, want the suffix %q", sample, kind, name, suffixes)
		}
	}
}

// X11: each metric and label of the Grafana dashboard is one that the program writes, and each family of requests, tokens
// and availability is on it.
func TestGrafanaDashboard(t *testing.T) {
	data, err := os.ReadFile("../../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil || len(dashboard.Panels) < 10 {
		t.Fatalf("got %d panels, %v; want at least 10", len(dashboard.Panels), err)
	}
	status := busy()
	status.FrontDoor.Dropped = map[string]int64{"user": 1}
	text, used := metricsText(status, false), ""
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			used += target.Expr + "\n"
			for _, name := range regexp.MustCompile(`companion_\w+`).FindAllString(target.Expr, -1) {
				if !regexp.MustCompile(`(?m)^` + name + `[ {]`).MatchString(text) {
					t.Errorf("%s: got the metric %s, want one that the program writes", panel.Title, name)
				}
			}
			for _, label := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if label[1] != "instance" && !strings.Contains(text, label[1]+`="`) {
					t.Errorf("%s: got the label %s, want one that the program writes", panel.Title, label[1])
				}
			}
		}
	}
	for _, name := range []string{"companion_requests_total", "companion_generated_tokens_total", "companion_time_to_first_token_seconds", "companion_available_seconds_total"} {
		if !strings.Contains(used, name) {
			t.Errorf("got no panel of %s, want one", name)
		}
	}
}
