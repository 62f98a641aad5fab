package config

import "time"

const (
	path     = `an absolute path, or ""`
	loopback = "127.0.0.1"
)

// table lists every key in the order of the commented file.
var table = concat(hubKeys(), modelKeys(), runtimeKeys(), doorKeys(), laneKeys(), diskKeys(), logKeys())

func concat(groups ...[]key) []key {
	var all []key
	for _, group := range groups {
		all = append(all, group...)
	}
	return all
}

func hubKeys() []key {
	return []key{
		stringKey("hub.url", "the hub's https origin; empty: no hub, only what `companion add` added",
			`an https origin without path, such as "https://hub.example", or ""`, "",
			func(s *Settings) *string { return &s.Hub.URL }, isHubURL),
		stringKey("hub.ca_file", "one more root certificate (PEM), for a private hub", path, "",
			func(s *Settings) *string { return &s.Hub.CAFile }, isOptionalPath),
		stringKey("hub.client_id", "the OAuth client id; empty: register one (RFC 7591)", `a public client id, or ""`, "",
			func(s *Settings) *string { return &s.Hub.ClientID }, clientPattern.MatchString),
		stringKey("hub.issuer", "the OAuth issuer; empty: hub.url + /api/v1/auth/native",
			`an https URL without query, as the server's metadata says it, or ""`, "",
			func(s *Settings) *string { return &s.Hub.IssuerURL }, isOptionalIssuer),
		boolKey("hub.first_party", "the hub must name itself (iss) when it sends the browser back, announced or not", true,
			func(s *Settings) *bool { return &s.Hub.FirstParty }),
		boolKey("hub.foreign_endpoints", "the hub's sign-in endpoints may be on other https origins", false,
			func(s *Settings) *bool { return &s.Hub.ForeignEndpoints }),
		enumKey("hub.redirect_address", "where the browser comes back to after sign-in",
			func(s *Settings) *string { return &s.Hub.RedirectAddress }, loopback, "[::1]"),
		durationKey("hub.sign_in_timeout", "how long one sign-in may take", "2m", time.Second, time.Hour,
			func(s *Settings) *time.Duration { return &s.Hub.SignInTimeout }),

		stringKey("manifest.root_file", "the pinned TUF root; empty: no manifest is trusted", path, "",
			func(s *Settings) *string { return &s.Manifest.RootFile }, isOptionalPath),
		durationKey("manifest.grace", "how long what is verified may serve after the manifest expired", "72h", 0, 90*24*time.Hour,
			func(s *Settings) *time.Duration { return &s.Manifest.Grace }),
		hostsKey("manifest.private_hosts", "artifact hosts that may resolve to private or loopback addresses",
			func(s *Settings) *[]string { return &s.Manifest.PrivateHosts }),

		enumKey("keychain.backend", "which keychain holds the secrets; auto: the platform's own",
			func(s *Settings) *string { return &s.Keychain.Backend },
			"auto", "secret-service", "kernel-keyring", "macos", "windows"),
		stringKey("keychain.service", "the name under which secrets are kept",
			"up to 64 letters, digits, '.', '_' or '-'", "companion",
			func(s *Settings) *string { return &s.Keychain.Service }, servicePattern.MatchString),
	}
}

func modelKeys() []key {
	return []key{
		stringKey("model.name", "the model to serve; empty: the manifest's default", `a manifest name, or ""`, "",
			func(s *Settings) *string { return &s.Model.Name }, namePattern.MatchString),
		zeroOrKey("model.context", "tokens that the model sees at once; 0: what it was trained for, as far as memory allows", 256, 1<<20,
			func(s *Settings) *int { return &s.Model.Context }),
	}
}

func runtimeKeys() []key {
	return []key{
		intKey("runtime.threads", "threads of the runtime; 0: the physical cores that it may use", 0, 0, 1024,
			func(s *Settings) *int { return &s.Runtime.Threads }),
		enumKey("runtime.speculation", "auto: speculative decoding (draft tokens from text that repeats, checked several at once), where that is faster",
			func(s *Settings) *string { return &s.Runtime.Speculation }, "off", "auto"),
		cacheKey("runtime.prompt_cache", `memory for prompts that left their slot; "auto": a small share of what is free`,
			func(s *Settings) *int64 { return &s.Runtime.PromptCache }),
		durationKey("runtime.idle_unload", "an idle model gives its memory back; 0s: never", "30m", 0, 24*time.Hour,
			func(s *Settings) *time.Duration { return &s.Runtime.IdleUnload }),
		enumKey("runtime.priority", `normal: as your other programs; background: they come first`,
			func(s *Settings) *string { return &s.Runtime.Priority }, "normal", "background"),
		intKey("runtime.max_in_flight", "requests that run at once", 2, 1, 64,
			func(s *Settings) *int { return &s.Runtime.MaxInFlight }),
		intKey("runtime.queue_bound", "requests that may wait", 16, 0, 4096,
			func(s *Settings) *int { return &s.Runtime.QueueBound }),
		durationKey("runtime.queue_timeout", "how long a request may wait", "10m", time.Millisecond, time.Hour,
			func(s *Settings) *time.Duration { return &s.Runtime.QueueTimeout }),
		sizeKey("runtime.memory_limit", "limit of the runtime's resident memory; empty: no limit", "", true, 64<<20,
			func(s *Settings) *int64 { return &s.Runtime.MemoryLimit }),
		sizeKey("runtime.gpu_memory_limit", "limit of the runtime's GPU memory; empty: no limit", "", true, 64<<20,
			func(s *Settings) *int64 { return &s.Runtime.GPUMemoryLimit }),
		percentKey("runtime.cpu_limit", "limit of the runtime's processor use; empty: no limit",
			func(s *Settings) *float64 { return &s.Runtime.CPULimit }),
		enumKey("runtime.sandbox", `prefer: start also where a part of the sandbox is missing; there is no "off"`,
			func(s *Settings) *string { return &s.Runtime.Sandbox }, "require", "prefer"),
		stringKey("runtime.allow_unpinned_binary", "absolute path of a llama-server that no manifest names; status says so",
			path, "", func(s *Settings) *string { return &s.Runtime.AllowUnpinnedBinary }, isOptionalPath),
		durationKey("runtime.start_timeout", "from the start of the runtime to its first healthy answer", "2m", time.Second, time.Hour,
			func(s *Settings) *time.Duration { return &s.Runtime.StartTimeout }),
		durationKey("runtime.drain_timeout", "how long running requests may take to finish at a stop", "10s", 0, time.Hour,
			func(s *Settings) *time.Duration { return &s.Runtime.DrainTimeout }),
		durationKey("runtime.stop_timeout", "how long after SIGTERM the runtime gets SIGKILL", "3s", time.Millisecond, time.Minute,
			func(s *Settings) *time.Duration { return &s.Runtime.StopTimeout }),
		boolKey("runtime.low_latency", "scheduler priorities and raw socket I/O; false: the same behaviour, with longer delays", true,
			func(s *Settings) *bool { return &s.Runtime.LowLatency }),
	}
}

func doorKeys() []key {
	return []key{
		enumKey("front_door.address", `where the endpoint listens`,
			func(s *Settings) *string { return &s.FrontDoor.Address }, loopback, "[::1]"),
		zeroOrKey("front_door.port", "0: the system chooses one at each start; what a fixed port costs is in docs/operations.md", 1024, 65_535,
			func(s *Settings) *int { return &s.FrontDoor.Port }),
		intKey("front_door.rate_per_minute", "requests a minute", 600, 1, 100_000,
			func(s *Settings) *int { return &s.FrontDoor.RatePerMinute }),
		enumKey("front_door.unknown_fields", `unknown fields of a request; "drop" is for clients that cannot be changed`,
			func(s *Settings) *string { return &s.FrontDoor.UnknownFields }, "refuse", "drop"),
		intKey("front_door.max_connections", "open connections", 1024, 4, 16_384,
			func(s *Settings) *int { return &s.FrontDoor.MaxConnections }),
		sizeKey("front_door.max_head", "largest request head", "16KiB", false, 1<<10,
			func(s *Settings) *int64 { return &s.FrontDoor.MaxHead }),
		sizeKey("front_door.max_body", "largest request body", "16MiB", false, 1<<10,
			func(s *Settings) *int64 { return &s.FrontDoor.MaxBody }),
		durationKey("front_door.head_timeout", "how long reading a request head may take", "10s", time.Millisecond, time.Hour,
			func(s *Settings) *time.Duration { return &s.FrontDoor.HeadTimeout }),
		durationKey("front_door.body_timeout", "how long reading a request body may take", "30s", time.Millisecond, time.Hour,
			func(s *Settings) *time.Duration { return &s.FrontDoor.BodyTimeout }),
		durationKey("front_door.idle_timeout", "how long an idle connection stays open", "2m", time.Millisecond, time.Hour,
			func(s *Settings) *time.Duration { return &s.FrontDoor.IdleTimeout }),
		durationKey("front_door.stall_timeout", "a client that does not read its answer for so long is cut off", "30s", time.Millisecond, time.Hour,
			func(s *Settings) *time.Duration { return &s.FrontDoor.StallTimeout }),

		durationKey("health.beat", "time between two probes", "5s", 100*time.Millisecond, time.Hour,
			func(s *Settings) *time.Duration { return &s.Health.Beat }),
		durationKey("health.recency", "how old the last success may be", "15s", 200*time.Millisecond, time.Hour,
			func(s *Settings) *time.Duration { return &s.Health.Recency }),
		durationKey("health.idle_probe", "how long the runtime may be idle before a probe asks it for one token", "1m", time.Second, 24*time.Hour,
			func(s *Settings) *time.Duration { return &s.Health.IdleProbe }),
	}
}

func laneKeys() []key {
	keys := []key{
		boolKey("lanes.privacy_mode", "organisation privacy mode: never a direct provider", false,
			func(s *Settings) *bool { return &s.Lanes.PrivacyMode }),
		boolKey("lanes.delegate", "you work on the notes of another person", false,
			func(s *Settings) *bool { return &s.Lanes.Delegate }),
		boolKey("lanes.delegate_managed", "their owner lets delegates use managed lanes", false,
			func(s *Settings) *bool { return &s.Lanes.DelegateManaged }),
		boolKey("lanes.delegate_enriched", "their owner lets delegates enrich by the local or openrouter lane", false,
			func(s *Settings) *bool { return &s.Lanes.DelegateEnriched }),
		durationKey("lanes.connect_timeout", "how long connecting to a lane may take", "10s", 100*time.Millisecond, 10*time.Minute,
			func(s *Settings) *time.Duration { return &s.Lanes.ConnectTimeout }),
		durationKey("lanes.first_byte_timeout", "from a request to the first byte of its answer", "10m", time.Second, 24*time.Hour,
			func(s *Settings) *time.Duration { return &s.Lanes.FirstByteTimeout }),
		durationKey("lanes.request_timeout", "from a request to the end of its answer", "30m", time.Second, 24*time.Hour,
			func(s *Settings) *time.Duration { return &s.Lanes.RequestTimeout }),
	}
	lanes := []struct {
		name string
		at   func(*Settings) *Lane
	}{
		{"self_hosted", func(s *Settings) *Lane { return &s.Lanes.SelfHosted }},
		{"enterprise", func(s *Settings) *Lane { return &s.Lanes.Enterprise }},
		{"openrouter", func(s *Settings) *Lane { return &s.Lanes.OpenRouter }},
		{"direct_provider", func(s *Settings) *Lane { return &s.Lanes.DirectProvider }},
	}
	for _, lane := range lanes {
		keys = append(keys,
			stringKey("lanes."+lane.name+".base_url", "OpenAI-format base URL; empty: this lane does not exist",
				`an https URL (http on a loopback address only), unix:/absolute/path of a socket, or ""`, "",
				func(s *Settings) *string { return &lane.at(s).BaseURL }, isLaneURL),
			stringKey("lanes."+lane.name+".model", "the model to ask for", `a model name, or ""`, "",
				func(s *Settings) *string { return &lane.at(s).Model }, namePattern.MatchString),
			stringKey("lanes."+lane.name+".key_env", "the environment variable that holds the key",
				`the name of an environment variable in capitals, or "" (never the key itself)`, "",
				func(s *Settings) *string { return &lane.at(s).KeyEnv }, envPattern.MatchString))
	}
	return keys
}

func diskKeys() []key {
	return []key{
		sizeKey("disk.budget", `what models, runtimes and downloads may take, such as "20GiB"`, "", true, 1<<20,
			func(s *Settings) *int64 { return &s.Disk.Budget }),
	}
}

func logKeys() []key {
	return []key{
		enumKey("log.level", "the least severe level that is logged",
			func(s *Settings) *string { return &s.Log.Level }, "info", "debug", "warn", "error"),
		sizeKey("log.max_size", "the log file is rotated at this size", "10MiB", false, 1<<20,
			func(s *Settings) *int64 { return &s.Log.MaxSize }),
		intKey("log.backups", "rotated files kept", 5, 1, 100,
			func(s *Settings) *int { return &s.Log.Backups }),
	}
}
