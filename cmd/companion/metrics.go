package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"companion/messages"
)

func (a *app) metricsCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "metrics", Short: "Print metrics as OpenMetrics text, from the control socket",
		Long: "Print metrics as OpenMetrics text, from the control socket; no port is opened.\n\n" +
			"  companion metrics --format prometheus > companion.prom.tmp && mv companion.prom.tmp companion.prom\n\n" +
			"in a timer puts them where node_exporter's textfile collector reads them; it needs the older format.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "openmetrics" && format != "prometheus" {
				return usageFailure(fmt.Sprintf("--format %q is not known", format), "accepted: openmetrics, prometheus")
			}
			client, err := a.control()
			if err != nil {
				return err
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			return print(a.out, metricsText(status, format == "openmetrics"))
		},
	}
	cmd.Flags().StringVar(&format, "format", "openmetrics", "openmetrics, or prometheus (text format 0.0.4)")
	return exits(cmd, exitNotRunning)
}

// exposition writes metric families in one of the two text formats, which differ in the names of counters and in the
// end (OpenMetrics 1.0, Prometheus text format 0.0.4).
type exposition struct {
	strings.Builder
	open bool
}

// family begins a family. Counters end in _total, which OpenMetrics leaves out of the family's name.
func (e *exposition) family(name, kind, help string) {
	if e.open && kind == "counter" {
		name = strings.TrimSuffix(name, "_total")
	}
	if !e.open && kind == "info" {
		name, kind = name+"_info", "gauge"
	}
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes one sample; labels are pairs of name and value.
func (e *exposition) sample(name string, value float64, labels ...string) {
	e.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		e.WriteString(mark(i == 0, "{", ",") + labels[i] + `="` + labelEscapes.Replace(strings.ToValidUTF8(labels[i+1], "�")) + `"`)
	}
	e.WriteString(mark(len(labels) > 0, "}", "") + " " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// gauge writes a family of one sample.
func (e *exposition) gauge(name, help string, value float64) {
	e.family(name, "gauge", help)
	e.sample(name, value)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// metricsText is the whole exposition of one status.
func metricsText(s messages.Status, open bool) string {
	e := &exposition{open: open}
	e.family("companion", "info", "Version of the daemon.")
	e.sample("companion_info", 1, "version", s.Version)
	e.gauge("companion_start_time_seconds", "Start of the daemon, in seconds since 1970.", unixSeconds(&s.StartedAt))
	e.gauge("companion_available", "Whether local inference is available.", truth(s.CompanionAvailable))
	e.gauge("companion_available_change_time_seconds", "Last change of availability or lifecycle, in seconds since 1970.", unixSeconds(&s.Since))
	e.family("companion_available_seconds_total", "counter", "Time for which local inference was available since the start of the daemon.")
	e.sample("companion_available_seconds_total", s.AvailableSeconds)
	e.family("companion_lifecycle", "gauge", "Lifecycle of the runtime: 1 for the state that holds.")
	for _, state := range []messages.State{messages.StateStopped, messages.StateStarting, messages.StateReady, messages.StateDraining} {
		e.sample("companion_lifecycle", truth(s.Lifecycle == state), "state", string(state))
	}
	e.requests(s.FrontDoor)
	e.runtime(s.Runtime)
	e.family("companion_model", "info", "Model that is served or wanted.")
	e.sample("companion_model_info", 1, "name", s.Model.Name, "version", s.Model.Version)
	e.gauge("companion_model_verified", "Whether the model and the runtime are verified.", truth(s.Model.Verified))
	if s.Manifest.Expires != nil {
		e.gauge("companion_manifest_expiry_time_seconds", "Expiry of the manifest, in seconds since 1970.", unixSeconds(s.Manifest.Expires))
	}
	if s.Manifest.CheckedAt != nil {
		e.gauge("companion_manifest_checked_time_seconds", "Last check of the manifest, in seconds since 1970.", unixSeconds(s.Manifest.CheckedAt))
	}
	e.gauge("companion_signed_in", "Whether a user is signed in.", truth(s.Session.State == messages.SessionSignedIn))
	if len(s.Transfers) > 0 {
		e.family("companion_transfer_received_bytes", "gauge", "Bytes of a transfer that are here.")
		for _, t := range s.Transfers {
			e.sample("companion_transfer_received_bytes", float64(t.Bytes), "name", t.Name)
		}
		e.family("companion_transfer_size_bytes", "gauge", "Size of a transfer.")
		for _, t := range s.Transfers {
			e.sample("companion_transfer_size_bytes", float64(t.Total), "name", t.Name)
		}
	}
	e.family("companion_actor_restarts_total", "counter", "Restarts of an actor since the start of the daemon.")
	for _, actor := range s.Actors {
		e.sample("companion_actor_restarts_total", float64(actor.Restarts), "actor", string(actor.Name))
	}
	if open {
		e.WriteString("# EOF\n")
	}
	return e.String()
}

func (e *exposition) requests(d messages.StatusFrontDoor) {
	e.family("companion_requests_total", "counter", "Answered requests by reason; ok is an answer of the model.")
	for _, reason := range slices.Sorted(maps.Keys(d.Verdicts)) {
		e.sample("companion_requests_total", float64(d.Verdicts[reason]), "reason", string(reason))
	}
	e.family("companion_dropped_fields_total", "counter", "Requests by the field that was left out of them; unknown stands for fields without a name here.")
	for _, name := range slices.Sorted(maps.Keys(d.Dropped)) {
		e.sample("companion_dropped_fields_total", float64(d.Dropped[name]), "field", name)
	}
	if len(d.Applications) > 0 {
		e.family("companion_application_requests_total", "counter", "Requests that an application sent with its own token.")
		for _, application := range d.Applications {
			e.sample("companion_application_requests_total", float64(application.Requests), "application", application.Name)
		}
	}
	e.gauge("companion_requests_in_flight", "Requests that the runtime computes.", float64(d.InFlight))
	e.gauge("companion_requests_queued", "Requests that wait.", float64(d.Queued))
	e.gauge("companion_requests_in_flight_limit", "Requests that may run at once.", float64(d.MaxInFlight))
	e.gauge("companion_requests_queued_limit", "Requests that may wait.", float64(d.QueueBound))
	e.histogram("companion_request_duration_seconds", "Time from a request's head to the end of its answer.", d.Latency, d.LatencyCount, d.LatencySumMilliseconds)
	e.histogram("companion_time_to_first_token_seconds", "Time from a request's head to the first event of its stream.", d.FirstToken, d.FirstTokenCount, d.FirstTokenSumMilliseconds)
	for _, counter := range []struct {
		name, help string
		value      float64
	}{
		{"companion_prompt_tokens_total", "Tokens of prompts that were answered.", float64(d.PromptTokens)},
		{"companion_generated_tokens_total", "Tokens of complete answers.", float64(d.CompletionTokens)},
		{"companion_generation_seconds_total", "Time in which those tokens were generated; the ratio of both is tokens per second.", d.GenerationSeconds},
	} {
		e.family(counter.name, "counter", counter.help)
		e.sample(counter.name, counter.value)
	}
}

// histogram writes a histogram from cumulative buckets in milliseconds.
func (e *exposition) histogram(name, help string, cumulative []messages.StatusLatency, count int64, sumMilliseconds float64) {
	e.family(name, "histogram", help)
	buckets := slices.SortedFunc(slices.Values(cumulative), func(a, b messages.StatusLatency) int {
		return cmp.Compare(a.UpToMilliseconds, b.UpToMilliseconds)
	})
	for _, bucket := range buckets {
		e.sample(name+"_bucket", float64(bucket.Count), "le", strconv.FormatFloat(bucket.UpToMilliseconds/1000, 'g', -1, 64))
	}
	e.sample(name+"_bucket", float64(count), "le", "+Inf")
	e.sample(name+"_sum", sumMilliseconds/1000)
	e.sample(name+"_count", float64(count))
}

func (e *exposition) runtime(r messages.StatusRuntime) {
	e.gauge("companion_runtime_running", "Whether a runtime process runs.", truth(r.PID != 0))
	e.gauge("companion_runtime_held", "Whether the runtime is held back after repeated failures.", truth(r.Held))
	e.gauge("companion_runtime_pinned", "Whether the runtime's binary is the manifest's.", truth(r.Pinned))
	e.family("companion_runtime_failures_total", "counter", "Failures of the runtime since the start of the daemon.")
	e.sample("companion_runtime_failures_total", float64(r.Restarts))
	e.gauge("companion_runtime_resident_memory_bytes", "Resident memory of the runtime.", float64(r.ResidentBytes))
	e.gauge("companion_runtime_cpu_ratio", "CPU use of the runtime; 1 is one processor.", r.CPUPercent/100)
	e.gauge("companion_runtime_gpu_memory_bytes", "GPU memory of the runtime.", float64(r.GPUBytes))
}

// unixSeconds is t as a metric's value; 0 for no time.
func unixSeconds(t *time.Time) float64 {
	if t == nil || t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
